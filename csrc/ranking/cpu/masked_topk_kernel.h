// The k best items of each user, by dot product, without the users already seen and without a score matrix.
// No torch.
#pragma once

#include <cstdint>

namespace smore {

template <typename T, typename I>
struct TopkJob {
  const T* users;  // [n_users, d]
  int64_t n_users, n_items, d, k;
  const T* items;        // [n_items, d]
  const T* panels;       // items as written by topk_pack; null: each block of users packs them anew
  const I* seen_rowptr;  // [n_users + 1], or null: nothing is masked
  const I* seen_col;     // sorted within a row
  T* score;              // [n_users, k], -inf where nothing is left
  int64_t* index;        // [n_users, k], -1 where nothing is left
};

// Users that one thread ranks together.
inline constexpr int64_t kTopkUsers = 64;
inline int64_t topk_blocks(int64_t n_users) { return (n_users + kTopkUsers - 1) / kTopkUsers; }

// Panels of items, and the number of elements they take.
template <typename T>
int64_t topk_panels(int64_t n_items);
template <typename T>
int64_t topk_panel_elements(int64_t d);
template <typename T>
void topk_pack(const T* items, int64_t n_items, int64_t d, T* panels, int64_t first_panel, int64_t last_panel);

// Ranks the users of blocks [begin, end). Order: score descending, then index ascending; NaN scores are never
// chosen.
template <typename T, typename I>
void topk_users(const TopkJob<T, I>& job, int64_t begin, int64_t end);

}  // namespace smore
