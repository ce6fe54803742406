#include "cpu/host_cache.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <list>
#include <mutex>
#include <unordered_map>

#include "cpu/fork.h"
#include "cpu/huge_pages.h"

namespace smore {
namespace {

constexpr std::size_t kSmallest = std::size_t{1} << 20, kLargest = std::size_t{1} << 46;

class HostCache final : public c10::Allocator {
 public:
  explicit HostCache(c10::Allocator* base) : base_(base) {}

  c10::DataPtr allocate(std::size_t bytes) override { return allocate(bytes, false); }

  // `output`: the memory of a result of our own ops, which is reused also while torch's own tensors are not.
  c10::DataPtr allocate(std::size_t bytes, bool output) {
    if (bytes < kSmallest || bytes > kLargest) return base_->allocate(bytes);
    const std::size_t size = (bytes + kSmallest - 1) / kSmallest * kSmallest;
    void* block = nullptr;
    bool active = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      active = limit_ > 0 && (output || every_tensor_);
      if (active) block = take(size);
    }
    if (!active) return base_->allocate(bytes);
    if (block == nullptr) {
      block = fresh(size);
      prefer_huge_pages(block, size);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    live_[block] = size;
    return {block, block, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* dest, const void* src, std::size_t count) const override { default_copy_data(dest, src, count); }

  void limit(std::size_t max_bytes, bool every_tensor) {
    std::list<Block> surplus;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      limit_ = max_bytes;
      every_tensor_ = every_tensor;
      surplus = take_surplus();
    }
    free(surplus);
  }

  HostCacheState state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {limit_, every_tensor_, bytes_};
  }

  // Whether there was something to give back.
  bool clear() {
    std::list<Block> kept;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      kept.swap(kept_);
      bytes_ = 0;
    }
    free(kept);
    return !kept.empty();
  }

  static HostCache& instance() {
    // Never destroyed: tensors may outlive every static object.
    static HostCache* cache = made();
    return *cache;
  }

 private:
  static std::mutex& lock_of_all() { return instance().mutex_; }

  static HostCache* made() {
    free_in_children<&lock_of_all>();
    return new HostCache(c10::GetCPUAllocator());
  }

  struct Block {
    void* data;
    std::size_t size;
  };

  static void release(void* data) { instance().give_back(data); }

  // From the system; if that refuses, once more without what is kept.
  void* fresh(std::size_t size) {
    try {
      return base_->raw_allocate(size);
    } catch (const c10::Error&) {
      if (!clear()) throw;
      return base_->raw_allocate(size);
    }
  }

  void give_back(void* data) {
    std::list<Block> surplus;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(data);
      const std::size_t size = found == live_.end() ? 0 : found->second;
      if (found != live_.end()) live_.erase(found);
      if (size > 0 && size <= limit_) {
        kept_.push_back({data, size});
        bytes_ += size;
        surplus = take_surplus();
      } else {
        surplus.push_back({data, size});
      }
    }
    free(surplus);
  }

  void free(const std::list<Block>& blocks) {
    for (const Block& block : blocks) base_->raw_deallocate(block.data);
  }

  // The block of this size that was freed last: most likely still in the processor's cache.
  void* take(std::size_t size) {
    for (auto at = kept_.rbegin(); at != kept_.rend(); ++at) {
      if (at->size != size) continue;
      void* data = at->data;
      kept_.erase(std::next(at).base());
      bytes_ -= size;
      return data;
    }
    return nullptr;
  }

  // The oldest kept blocks beyond the limit; freed by the caller, outside the lock.
  std::list<Block> take_surplus() {
    std::list<Block> surplus;
    while (bytes_ > limit_) {
      bytes_ -= kept_.front().size;
      surplus.splice(surplus.end(), kept_, kept_.begin());
    }
    return surplus;
  }

  c10::Allocator* base_;
  std::mutex mutex_;
  std::size_t limit_ = kOutputCacheBytes, bytes_ = 0;
  bool every_tensor_ = false;
  std::list<Block> kept_;  // oldest first
  std::unordered_map<void*, std::size_t> live_;
};

}  // namespace

void set_host_cache(std::size_t max_bytes, bool every_tensor) {
  static std::once_flag installed;
  if (every_tensor) std::call_once(installed, [] { c10::SetCPUAllocator(&HostCache::instance(), 1); });
  HostCache::instance().limit(max_bytes, every_tensor);
}

HostCacheState host_cache() { return HostCache::instance().state(); }

void clear_host_cache() { HostCache::instance().clear(); }

c10::Allocator* output_allocator() {
  class Outputs final : public c10::Allocator {
    c10::DataPtr allocate(std::size_t bytes) override { return HostCache::instance().allocate(bytes, true); }
    c10::DeleterFnPtr raw_deleter() const override { return HostCache::instance().raw_deleter(); }
    void copy_data(void* dest, const void* src, std::size_t count) const override {
      default_copy_data(dest, src, count);
    }
  };
  static Outputs* outputs = new Outputs;
  return outputs;
}

}  // namespace smore
