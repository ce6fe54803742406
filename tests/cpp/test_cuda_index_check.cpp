// Emulated checks of index lists: what is found, and that it is the first.
#include "cuda/index_check_kernel.h"
#include "cuda_harness.h"

namespace {

using harness::Array;
using smore::cuda::CsrVerdict;
using smore::cuda::kNothing;

int64_t first_bad(const std::vector<int64_t>& values, int64_t limit) {
  const Array<int64_t> ids(values);
  int64_t found = -1;
  harness::each_order([&] {
    Array<int64_t> first(1);
    smore::cuda::find_bad_id(ids.data(), ids.size(), limit, first.data(), nullptr);
    CHECK(found == -1 || found == first[0]);
    found = first[0];
  });
  return found;
}

template <typename I>
CsrVerdict judge(const std::vector<I>& pointers, const std::vector<I>& columns, int64_t n_cols, bool sorted) {
  const Array<I> rowptr(pointers), col(columns);
  CsrVerdict result{-1, -1, -1};
  harness::each_order([&] {
    Array<CsrVerdict> verdict(1);
    smore::cuda::check_rows<I>(rowptr.data(), rowptr.size() - 1, col.data(), col.size(), n_cols, sorted, verdict.data(),
                               nullptr);
    CHECK(result.bad_row == -1 || std::memcmp(&result, verdict.data(), sizeof result) == 0);
    result = verdict[0];
  });
  return result;
}

}  // namespace

TEST(the_first_bad_id_is_found) {
  std::vector<int64_t> ids = harness::random_ids(2000, 50, 1);
  CHECK(first_bad(ids, 50) > kNothing);
  ids[1999] = 50;
  CHECK(first_bad(ids, 50) == 1999);
  ids[700] = -1;
  ids[701] = int64_t{1} << 40;
  ids[1300] = 77;
  CHECK(first_bad(ids, 50) == 700);
  CHECK(first_bad({}, 5) > kNothing);
  CHECK(first_bad({0}, 1) > kNothing);
  CHECK(first_bad({0}, 0) == 0);
  ids.assign((512 + 2) * 256, 3);  // more than one id for some threads
  ids[512 * 256 + 300] = 4;
  CHECK(first_bad(ids, 4) == 512 * 256 + 300);
}

TEST(sound_rows_and_their_lengths) {
  const CsrVerdict v = judge<int32_t>({0, 2, 2, 5}, {0, 3, 1, 2, 3}, 4, true);
  CHECK(v.bad_row > kNothing && v.shortest == 0 && v.minus_longest == -3);
  const CsrVerdict fixed = judge<int64_t>({0, 2, 4, 6}, {0, 3, 1, 2, 1, 3}, 4, true);
  CHECK(fixed.bad_row > kNothing && fixed.shortest == 2 && fixed.minus_longest == -2);
  CHECK(judge<int32_t>({0}, {}, 0, true).bad_row > kNothing);
  CHECK(judge<int32_t>({0, 0}, {}, 0, true).bad_row > kNothing);
}

TEST(the_first_bad_row_is_found) {
  CHECK(judge<int32_t>({0, 2, 2, 5}, {0, 3, 1, 2, 4}, 4, false).bad_row == 2);
  CHECK(judge<int32_t>({0, 2, 2, 5}, {0, 3, -1, 2, 3}, 4, false).bad_row == 2);
  CHECK(judge<int32_t>({0, 2, 1, 5}, {0, 3, 1, 2, 3}, 4, false).bad_row == 1);
  CHECK(judge<int32_t>({0, 2, 9, 5}, {0, 3, 1, 2, 3}, 4, false).bad_row == 1);
  CHECK(judge<int32_t>({0, -2, 2, 5}, {0, 3, 1, 2, 3}, 4, false).bad_row == 0);
  CHECK(judge<int32_t>({0, 2, 4}, {0, 3, 1, 2, 3}, 4, false).bad_row == 0);
  CHECK(judge<int32_t>({1, 2, 5}, {0, 3, 1, 2, 3}, 4, false).bad_row == 0);
  CHECK(judge<int32_t>({0}, {1}, 4, false).bad_row == 0);
  CHECK(judge<int64_t>({0, INT64_MAX, INT64_MIN, 2}, {0, 1}, 4, true).bad_row == 0);
}

TEST(order_within_rows_matters_only_if_asked_for) {
  const std::vector<int64_t> rowptr{0, 2, 5}, falling{0, 3, 2, 1, 3}, twice{0, 3, 1, 3, 3};
  CHECK(judge<int64_t>(rowptr, falling, 4, false).bad_row > kNothing);
  CHECK(judge<int64_t>(rowptr, falling, 4, true).bad_row == 1);
  CHECK(judge<int64_t>(rowptr, twice, 4, true).bad_row == 1);
}

TEST(long_rows_and_many_rows) {
  std::vector<int32_t> rowptr{0}, col;
  for (int32_t r = 0; r < 4200; ++r) {  // more rows than warps
    for (int32_t e = 0; e < (r == 9 ? 100 : 2); ++e) col.push_back(e * 3);
    rowptr.push_back(static_cast<int32_t>(col.size()));
  }
  CsrVerdict v = judge(rowptr, col, 298, true);
  CHECK(v.bad_row > kNothing && v.shortest == 2 && v.minus_longest == -100);
  v = judge(rowptr, col, 297, true);
  CHECK(v.bad_row == 9);
  col[static_cast<size_t>(rowptr[4150])] = 3;
  CHECK(judge(rowptr, col, 298, true).bad_row == 4150);
}
