#include "cpu/host_cache.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <list>
#include <mutex>
#include <unordered_map>

namespace smore {
namespace {

constexpr std::size_t kSmallest = std::size_t{1} << 20;

class HostCache final : public c10::Allocator {
 public:
  explicit HostCache(c10::Allocator* base) : base_(base) {}

  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes < kSmallest) return base_->allocate(bytes);
    const std::size_t size = (bytes + kSmallest - 1) / kSmallest * kSmallest;
    void* block = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (limit_ == 0) return base_->allocate(bytes);
      block = take(size);
    }
    if (block == nullptr) block = base_->raw_allocate(size);
    const std::lock_guard<std::mutex> lock(mutex_);
    live_[block] = size;
    return {block, block, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* dest, const void* src, std::size_t count) const override { default_copy_data(dest, src, count); }

  void limit(std::size_t max_bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limit_ = max_bytes;
    shrink();
  }

  static HostCache& instance() {
    // Never destroyed: tensors may outlive every static object.
    static HostCache* cache = new HostCache(c10::GetCPUAllocator());
    return *cache;
  }

 private:
  struct Block {
    void* data;
    std::size_t size;
  };

  static void release(void* data) { instance().give_back(data); }

  void give_back(void* data) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(data);
      if (found != live_.end()) {
        const std::size_t size = found->second;
        live_.erase(found);
        if (size <= limit_) {
          kept_.push_back({data, size});
          bytes_ += size;
          shrink();
          return;
        }
      }
    }
    base_->raw_deallocate(data);
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

  void shrink() {
    while (bytes_ > limit_) {
      bytes_ -= kept_.front().size;
      base_->raw_deallocate(kept_.front().data);
      kept_.pop_front();
    }
  }

  c10::Allocator* base_;
  std::mutex mutex_;
  std::size_t limit_ = 0, bytes_ = 0;
  std::list<Block> kept_;  // oldest first
  std::unordered_map<void*, std::size_t> live_;
};

}  // namespace

void set_host_cache(std::size_t max_bytes) {
  static std::once_flag installed;
  if (max_bytes > 0) std::call_once(installed, [] { c10::SetCPUAllocator(&HostCache::instance(), 1); });
  HostCache::instance().limit(max_bytes);
}

}  // namespace smore
