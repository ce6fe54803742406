// Membership in an ascending list of indices.
#pragma once

#include <algorithm>
#include <cstdint>

namespace smore {

template <typename I>
bool contains(const I* begin, const I* end, int64_t value) {
  const I* found = std::lower_bound(begin, end, value, [](I a, int64_t b) { return static_cast<int64_t>(a) < b; });
  return found != end && static_cast<int64_t>(*found) == value;
}

}  // namespace smore
