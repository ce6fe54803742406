// The k best items of each user from tiles of scores, without the items already seen, on CUDA. No torch here.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"

namespace smore::cuda {

// Sizes of blocks, for at least one user. A tile has users * stride() elements, the lists of a block of users have
// users * splits * capacity.
struct TopkShape {
  int64_t users, items;  // of a tile
  int64_t splits;        // lists a user: where users are few, several warps share one's items out
  int64_t capacity;      // of a list
  int64_t stride() const { return (items + 3) / 4 * 4; }
};

inline constexpr int64_t kTopkTileBytes = 32 << 20;
inline constexpr int64_t kTopkListBytes = 24 << 20;

template <typename T>
TopkShape topk_shape(int64_t n_users, int64_t n_items, int64_t k) {
  constexpr int64_t element = sizeof(T), most_users = 2048, few = 64;
  TopkShape shape{};
  shape.capacity = std::min(n_items, std::max<int64_t>(128, k + k / 2));
  const int64_t fitting = kTopkListBytes / (shape.capacity * (element + 4));
  const int64_t blocks = (n_users + most_users - 1) / most_users, even = (n_users + blocks - 1) / blocks;
  shape.users = std::min(n_users, std::clamp<int64_t>(fitting, 1, (even + 63) / 64 * 64));
  const int64_t most_items = std::max<int64_t>(128, kTopkTileBytes / element / shape.users / 128 * 128);
  const int64_t parts = (n_items + most_items - 1) / most_items;
  shape.items = std::min(n_items, ((n_items + parts - 1) / parts + 127) / 128 * 128);
  shape.splits =
      k <= few ? std::clamp<int64_t>(most_users / shape.users, 1, std::min<int64_t>(16, 1 + shape.items / 512)) : 1;
  return shape;
}

// Lists of a block of users.
template <typename T>
struct TopkLists {
  int64_t k, capacity, splits;
  T* score;         // [users][splits][capacity]
  uint32_t* index;  // [users][splits][capacity]
  int64_t* count;   // [users][splits]
  T* bar;           // [users][splits]
};

template <typename I>
struct TopkSeen {
  const I* rowptr;  // [n_users + 1], or null: nothing is masked
  const I* col;     // [n_entries], ascending within a row
  int64_t n_entries;
};

// Scores of users [user, user + users) for items [item, item + items), `stride` elements a user.
struct TopkTile {
  int64_t user, users, item, items, stride;
};

// Offers a tile to its users' lists, which are empty before the tile of item 0; tiles of the same users come in the
// order of their items. Scores of seen items are overwritten in the tile.
template <typename T, typename I>
void topk_offer(const TopkLists<T>& lists, const TopkSeen<I>& seen, T* scores, const TopkTile& tile,
                cudaStream_t stream);

// score, index [users, k]: score descending, then index ascending; NaN never chosen; -inf and -1 where nothing is left.
// Uses up the lists.
template <typename T>
void topk_finish(const TopkLists<T>& lists, int64_t users, T* score, int64_t* index, cudaStream_t stream);

// All of it. `lists` and `tile` are scratch memory by `shape`. product(user, users, item, items, tile, stride) enqueues
// the scores of those users for those items.
template <typename T, typename I, typename F>
void topk_search(const TopkShape& shape, int64_t n_users, int64_t n_items, const TopkLists<T>& lists,
                 const TopkSeen<I>& seen, T* tile, T* score, int64_t* index, const F& product, cudaStream_t stream) {
  for (int64_t user = 0; user < n_users; user += shape.users) {
    const int64_t users = std::min(shape.users, n_users - user);
    for (int64_t item = 0; item < n_items; item += shape.items) {
      const int64_t items = std::min(shape.items, n_items - item);
      product(user, users, item, items, tile, shape.stride());
      topk_offer(lists, seen, tile, TopkTile{user, users, item, items, shape.stride()}, stream);
    }
    topk_finish(lists, users, score + user * lists.k, index + user * lists.k, stream);
  }
}

}  // namespace smore::cuda
