// A batch of BPR triples, as every device sees it. No torch here.
#pragma once

#include <cstdint>

namespace smore {

template <typename T>
struct BprBatch {
  const T* user_rows;        // [n_users, d]
  const T* item_rows;        // [n_items, d]
  const int64_t* users;      // [size], checked by the caller
  const int64_t* positives;  // [size]
  const int64_t* negatives;  // [size]
  int64_t size, d;
};

}  // namespace smore
