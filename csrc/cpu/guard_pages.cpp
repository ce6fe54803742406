// For fuzzers: every CPU tensor's memory ends, or begins, at a page that nobody may touch, and is gone when it is
// freed.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "common/module_part.h"
#include "cpu/fork.h"

namespace smore {
namespace {

enum class Guard { off, behind, before };
std::atomic<Guard> guard{Guard::off};

class GuardPages final : public c10::Allocator {
 public:
  explicit GuardPages(c10::Allocator* base) : base_(base) {}

  c10::DataPtr allocate(std::size_t bytes) override {
    const Guard side = guard;
    if (side == Guard::off || bytes == 0) return base_->allocate(bytes);
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inside = (bytes + page - 1) / page * page;
    void* map = mmap(nullptr, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(map != MAP_FAILED, "no guarded memory for ", bytes, " bytes");
    char* first = static_cast<char*>(map) + page;
    if (mprotect(first, inside, PROT_READ | PROT_WRITE) != 0) {
      munmap(map, inside + 2 * page);
      TORCH_CHECK(false, "no guarded memory for ", bytes, " bytes");
    }
    void* data = side == Guard::behind ? first + inside - bytes : first;
    const std::lock_guard<std::mutex> lock(mutex_);
    live_[data] = {map, inside + 2 * page};
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* dest, const void* src, std::size_t count) const override { default_copy_data(dest, src, count); }

  static GuardPages& instance() {
    // Never destroyed: tensors may outlive every static object.
    static GuardPages* pages = made();
    return *pages;
  }

 private:
  struct Map {
    void* address;
    std::size_t size;
  };

  static std::mutex& lock_of_all() { return instance().mutex_; }
  static GuardPages* made() {
    free_in_children<&lock_of_all>();
    return new GuardPages(c10::GetCPUAllocator());
  }

  static void release(void* data) { instance().give_back(data); }
  void give_back(void* data) {
    Map map{nullptr, 0};
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(data);
      if (found != live_.end()) {
        map = found->second;
        live_.erase(found);
      }
    }
    if (map.address == nullptr) return base_->raw_deallocate(data);
    munmap(map.address, map.size);
  }

  c10::Allocator* base_;
  std::mutex mutex_;
  std::unordered_map<void*, Map> live_;
};

void set_guard_pages(const std::string& where) {
  if (where != "off" && where != "behind" && where != "before") {
    throw std::invalid_argument("smore_ext: guard pages must be off, behind or before, got " + where);
  }
  static std::once_flag installed;
  if (where != "off") std::call_once(installed, [] { c10::SetCPUAllocator(&GuardPages::instance(), 2); });
  guard = where == "off" ? Guard::off : where == "behind" ? Guard::behind : Guard::before;
}

const ModulePart part([](pybind11::module_& m) {
  m.def("set_guard_pages", &set_guard_pages, pybind11::arg("where"),
        "Put CPU tensors beside a page that nobody may touch: off, behind or before. For fuzzers.");
});

}  // namespace
}  // namespace smore
