// Philox against its published test vectors; negatives are unseen candidates, evenly drawn, whatever the
// threads.
#include "sampling/cpu/sample_negatives_kernel.h"

#include "cpu/sorted_row.h"
#include "harness.h"

namespace {

bool equals(const smore::Philox& got, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return got.out[0] == a && got.out[1] == b && got.out[2] == c && got.out[3] == d;
}

}  // namespace

TEST(philox_known_answers) {  // philox4x32-10 of Random123's kat_vectors
  const uint64_t ones = ~uint64_t{0};
  CHECK(equals(smore::philox(0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  CHECK(equals(smore::philox(ones, ones, ones), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  CHECK(equals(smore::philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e), 0xd16cfe09, 0x94fdcceb,
               0x5001e420, 0x24126ea1));
}

TEST(draws_are_unseen_even_and_the_same_for_any_threads) {
  const std::vector<int32_t> rowptr{0, 0, 3, 9}, col{2, 5, 9, 0, 1, 2, 3, 4, 5};
  const std::vector<int64_t> candidates{1, 2, 5, 7, 9};
  constexpr int64_t kSize = 9000;
  std::vector<int64_t> users(kSize), first(kSize), second(kSize), other(kSize);
  for (int64_t b = 0; b < kSize; ++b) users[b] = b % 3;
  const auto run = [&](uint64_t seed, uint64_t offset, std::vector<int64_t>& out, int threads) {
    const smore::SampleJob<int32_t> job{
        users.data(), rowptr.data(), col.data(), 9,         candidates.data(), static_cast<int64_t>(candidates.size()),
        seed,         offset,        0,          out.data()};
    harness::run_ranges(kSize, threads,
                        [&](int64_t begin, int64_t end) { CHECK(smore::sample_range(job, begin, end) == -1); });
  };
  run(1, 0, first, 1);
  run(1, 0, second, 3);
  run(1, 1, other, 1);
  CHECK(first == second);
  CHECK(first != other);
  std::vector<int64_t> drawn(10);
  for (int64_t b = 0; b < kSize; ++b) {
    const int64_t user = users[b];
    CHECK(std::binary_search(candidates.begin(), candidates.end(), first[b]));
    CHECK(!smore::contains(col.data() + rowptr[user], col.data() + rowptr[user + 1], first[b]));
    if (user == 0) ++drawn[first[b]];
  }
  for (const int64_t item : candidates) CHECK_NEAR(static_cast<double>(drawn[item]), 600, 110);  // 5 sigma
}

TEST(a_user_who_has_seen_all_is_reported) {
  const std::vector<int64_t> rowptr{0, 1, 3}, col{0, 0, 1}, candidates{0, 1}, users{0, 1, 0, 1};
  std::vector<int64_t> negatives(4);
  const smore::SampleJob<int64_t> job{users.data(),    rowptr.data(), col.data(), 3, candidates.data(), 2, 0, 0, 0,
                                      negatives.data()};
  CHECK(smore::sample_range(job, 0, 4) == 1);
  CHECK(smore::sample_range(job, 2, 4) == 3);
  CHECK(smore::sample_range(job, 0, 1) == -1 && negatives[0] == 1);
}
