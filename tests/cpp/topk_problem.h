// A ranking to be made, and how the CPU kernel makes it: shared by its own tests and those of the CUDA kernels.
#pragma once

#include "cpu/aligned.h"
#include "harness.h"
#include "ranking/cpu/masked_topk_kernel.h"

namespace harness {

template <typename T, typename I>
struct Problem {
  int64_t n_users, n_items, d, k;
  std::vector<T> users, items;
  std::vector<I> rowptr, col;  // rowptr empty: nothing masked
};

template <typename T>
struct Ranked {
  std::vector<T> score;
  std::vector<int64_t> index;
};

// `before`: the items are packed before the users are ranked, and not while.
template <typename T, typename I>
Ranked<T> rank(const Problem<T, I>& p, int threads, bool before = true) {
  const int64_t panels = before ? smore::topk_panels<T>(p.n_items) : 0;
  const smore::AlignedBuffer<T> packed(panels * smore::topk_panel_elements<T>(p.d));
  run_ranges(panels, threads, [&](int64_t begin, int64_t end) {
    smore::topk_pack(p.items.data(), p.n_items, p.d, packed.get(), begin, end);
  });
  Ranked<T> out{std::vector<T>(p.n_users * p.k), std::vector<int64_t>(p.n_users * p.k)};
  const bool masked = !p.rowptr.empty();
  const smore::TopkJob<T, I> job{p.users.data(),
                                 p.n_users,
                                 p.n_items,
                                 p.d,
                                 p.k,
                                 p.items.data(),
                                 before ? packed.get() : nullptr,
                                 masked ? p.rowptr.data() : nullptr,
                                 masked ? p.col.data() : nullptr,
                                 out.score.data(),
                                 out.index.data()};
  run_ranges(smore::topk_blocks(p.n_users), threads,
             [&](int64_t begin, int64_t end) { smore::topk_users(job, begin, end); });
  return out;
}

}  // namespace harness
