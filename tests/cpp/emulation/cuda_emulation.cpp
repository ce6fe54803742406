#include "emulation/cuda_emulation.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {
namespace {

constexpr size_t kStack = 256 << 10;

// Stacks of fibers, and the scheduler's own, told to AddressSanitizer at every switch.
struct Context {
  ucontext_t state{};
  void* stack = nullptr;
  size_t stack_size = 0;
  void* fake_stack = nullptr;
};

void switch_to(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_size);
#endif
  swapcontext(&from.state, &to.state);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

enum class Waiting { no, barrier, collective };

struct Fiber {
  Context context;
  Position position{};
  int index = 0;
  bool done = false;
  Waiting waiting = Waiting::no;
  Collective kind{};
  unsigned mask = 0;
  uint64_t value = 0, result = 0;
  int source = 0;
};

struct Trap {};

struct Machine {
  Context scheduler;
  std::vector<std::unique_ptr<Fiber>> fibers;
  Fiber* current = nullptr;
  int count = 0;  // threads of the block
  const std::function<void()>* body = nullptr;
  std::map<const void*, void*> shared;
  void* dynamic = nullptr;
  std::string failure;
  Order order = Order::forward;
  std::mt19937 generator{1};
  std::set<std::string> kernels;

  ~Machine() {
    if (const char* file = std::getenv("SMORE_EMULATION_LOG"); file != nullptr && !kernels.empty()) {
      if (std::FILE* out = std::fopen(file, "a"); out != nullptr) {
        for (const std::string& name : kernels) std::fprintf(out, "%s\n", name.c_str());
        std::fclose(out);
      }
    }
    for (const auto& fiber : fibers) munmap(fiber->context.stack, kStack);
  }
};

Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

void fail(const std::string& text) {
  if (machine().failure.empty()) machine().failure = text;
}

void yield() { switch_to(machine().current->context, machine().scheduler); }

// A fiber's whole life: one thread of one block after the other.
void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  Context& scheduler = machine().scheduler;
  const void* bottom = nullptr;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &scheduler.stack_size);
  scheduler.stack = const_cast<void*>(bottom);
#endif
  for (;;) {
    try {
      (*machine().body)();
    } catch (const Trap&) {
      fail("__trap()");
    }
    machine().current->done = true;
    yield();
  }
}

void prepare(Fiber& fiber) {
  if (fiber.context.stack == nullptr) {
    fiber.context.stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber.context.stack == MAP_FAILED) throw std::bad_alloc();
    fiber.context.stack_size = kStack;
  }
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(fiber.context.stack, kStack);
  fiber.context.fake_stack = nullptr;
#endif
  getcontext(&fiber.context.state);
  fiber.context.state.uc_stack.ss_sp = fiber.context.stack;
  fiber.context.state.uc_stack.ss_size = kStack;
  fiber.context.state.uc_link = nullptr;
  makecontext(&fiber.context.state, &fiber_main, 0);
}

std::vector<unsigned> arranged(unsigned n) {
  std::vector<unsigned> order(n);
  std::iota(order.begin(), order.end(), 0u);
  if (machine().order == Order::reverse) std::reverse(order.begin(), order.end());
  if (machine().order == Order::shuffled) std::shuffle(order.begin(), order.end(), machine().generator);
  return order;
}

void* poisoned(size_t bytes) {
  void* block = std::aligned_alloc(16, (std::max<size_t>(bytes, 1) + 15) / 16 * 16);
  if (block == nullptr) throw std::bad_alloc();
  std::memset(block, 0xff, bytes);
#if defined(__SANITIZE_ADDRESS__)
  const size_t rounded = (std::max<size_t>(bytes, 1) + 15) / 16 * 16;
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(block) + bytes, rounded - bytes);
#endif
  return block;
}

void release_shared() {
  Machine& m = machine();
  for (const auto& [key, block] : m.shared) std::free(block);
  m.shared.clear();
  std::free(m.dynamic);
  m.dynamic = nullptr;
}

// Lets the lanes of a collective go on once all of them are there. Returns whether any did.
bool complete_collectives(int first_lane) {
  Machine& m = machine();
  bool progress = false;
  const int lanes = std::min(32, m.count - first_lane);
  const auto at = [&](int lane) -> Fiber& { return *m.fibers[static_cast<size_t>(first_lane + lane)]; };
  for (int leader = 0; leader < lanes; ++leader) {
    if (at(leader).waiting != Waiting::collective) continue;
    const unsigned mask = at(leader).mask;
    if ((mask >> leader & 1u) == 0) fail("a lane calls a warp collective whose mask leaves it out");
    bool complete = true;
    unsigned present = 0, votes = 0;
    for (int l = 0; l < lanes; ++l) {
      if ((mask >> l & 1u) == 0 || at(l).done) continue;
      present |= 1u << l;
      if (at(l).waiting != Waiting::collective || at(l).mask != mask || at(l).kind != at(leader).kind) complete = false;
      if (at(l).value != 0) votes |= 1u << l;
    }
    if (!complete) continue;
    for (int l = 0; l < lanes; ++l) {
      if ((present >> l & 1u) == 0) continue;
      Fiber& fiber = at(l);
      if (fiber.kind == Collective::ballot) fiber.result = votes;
      if (fiber.kind == Collective::shuffle) {
        if (fiber.source < 0 || fiber.source > 31 || (present >> fiber.source & 1u) == 0) {
          fail("lane " + std::to_string(l) + " reads lane " + std::to_string(fiber.source) +
               ", which does not take part");
          fiber.source = l;
        }
        fiber.result = at(fiber.source).value;
      }
    }
    for (int l = 0; l < lanes; ++l) {
      if (present >> l & 1u) at(l).waiting = Waiting::no;
    }
    progress = true;
  }
  return progress;
}

bool complete_barrier() {
  Machine& m = machine();
  bool any = false;
  for (int t = 0; t < m.count; ++t) {
    const Fiber& fiber = *m.fibers[static_cast<size_t>(t)];
    if (!fiber.done && fiber.waiting != Waiting::barrier) return false;
    any |= !fiber.done;
  }
  for (int t = 0; any && t < m.count; ++t) m.fibers[static_cast<size_t>(t)]->waiting = Waiting::no;
  return any;
}

void run_block() {
  Machine& m = machine();
  for (;;) {
    bool ran = false, alive = false;
    for (const unsigned t : arranged(static_cast<unsigned>(m.count))) {
      Fiber& fiber = *m.fibers[t];
      if (fiber.done) continue;
      alive = true;
      if (fiber.waiting != Waiting::no) continue;
      m.current = &fiber;
      switch_to(m.scheduler, fiber.context);
      ran = true;
      if (!m.failure.empty()) return;
    }
    if (!alive) return;
    bool progress = ran;
    for (int warp = 0; warp < m.count; warp += 32) progress |= complete_collectives(warp);
    progress |= complete_barrier();
    if (!m.failure.empty()) return;
    if (!progress) {
      int barrier = 0, collectives = 0;
      for (int t = 0; t < m.count; ++t) {
        barrier += m.fibers[static_cast<size_t>(t)]->waiting == Waiting::barrier ? 1 : 0;
        collectives += m.fibers[static_cast<size_t>(t)]->waiting == Waiting::collective ? 1 : 0;
      }
      fail("threads wait for ever: " + std::to_string(barrier) + " at __syncthreads, " + std::to_string(collectives) +
           " at a warp collective");
      return;
    }
  }
}

}  // namespace

void set_order(Order order) { machine().order = order; }

const Position& position() { return machine().current->position; }

int lane() { return machine().current->index % 32; }

void* shared_bytes(const void* key, size_t bytes) {
  void*& block = machine().shared[key];
  if (block == nullptr) block = poisoned(bytes);
  return block;
}

void* dynamic_shared() { return machine().dynamic; }

void block_barrier() {
  machine().current->waiting = Waiting::barrier;
  yield();
}

void trap() { throw Trap{}; }

uint64_t collective(Collective kind, unsigned mask, uint64_t value, int source) {
  Fiber& fiber = *machine().current;
  fiber.kind = kind;
  fiber.mask = mask;
  fiber.value = value;
  fiber.source = source;
  fiber.waiting = Waiting::collective;
  yield();
  return fiber.result;
}

void launch(const char* name, dim3 grid, dim3 block, size_t shared, const std::function<void()>& body) {
  Machine& m = machine();
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.y > 65535 || grid.z > 65535 || grid.x > INT32_MAX ||
      shared > (227 << 10)) {
    throw std::runtime_error(std::string(name) + ": invalid configuration");
  }
  m.kernels.insert(name);
  m.count = static_cast<int>(threads);
  m.body = &body;
  while (m.fibers.size() < threads) {
    m.fibers.push_back(std::make_unique<Fiber>());
    m.fibers.back()->index = static_cast<int>(m.fibers.size()) - 1;
    prepare(*m.fibers.back());
  }
  for (const unsigned flat : arranged(grid.x * grid.y * grid.z)) {
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& fiber = *m.fibers[t];
      fiber.position = {{t % block.x, t / block.x % block.y, t / block.x / block.y},
                        {flat % grid.x, flat / grid.x % grid.y, flat / grid.x / grid.y},
                        block,
                        grid};
      fiber.done = false;
      fiber.waiting = Waiting::no;
    }
    m.dynamic = shared > 0 ? poisoned(shared) : nullptr;
    run_block();
    release_shared();
    if (!m.failure.empty()) {
      const std::string text = std::string(name) + ": " + m.failure;
      m.failure.clear();
      for (const auto& fiber : m.fibers) prepare(*fiber);  // what they were at is given up
      throw std::runtime_error(text);
    }
  }
}

}  // namespace emulation
