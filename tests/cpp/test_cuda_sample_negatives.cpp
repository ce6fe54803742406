// Negatives drawn on the (emulated) device are those of the CPU kernel, and what cannot be drawn is reported.
#include "cpu/sorted_row.h"
#include "cuda_harness.h"
#include "sampling/cpu/sample_negatives_kernel.h"
#include "sampling/cuda/sample_negatives_kernel.h"

namespace {

using smore::cuda::SampleVerdict;
constexpr int64_t kNone = INT64_MAX / 2;

template <typename I>
struct Seen {
  std::vector<I> rowptr{0}, col;
  void add(const std::vector<int64_t>& items) {
    for (const int64_t item : items) col.push_back(static_cast<I>(item));
    rowptr.push_back(static_cast<I>(col.size()));
  }
  int64_t users() const { return static_cast<int64_t>(rowptr.size()) - 1; }
};

// Rows of every kind: none, few, long, and all candidates but one or two.
template <typename I>
Seen<I> seen_by_users(const std::vector<int64_t>& candidates, int64_t n_items) {
  Seen<I> seen;
  seen.add({});
  for (int64_t length = 1; length < 12; ++length) {
    std::vector<int64_t> items = harness::random_ids(length, n_items, static_cast<unsigned>(length));
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    seen.add(items);
  }
  std::vector<int64_t> half, nearly, odd;
  for (int64_t i = 0; i < n_items; i += 2) half.push_back(i);
  for (int64_t i = 1; i < n_items; i += 2) odd.push_back(i);
  for (int64_t i = 0; i < n_items; ++i) {
    if (i != candidates.front() && i != candidates[candidates.size() / 2]) nearly.push_back(i);
  }
  seen.add(half);
  seen.add(odd);
  seen.add(nearly);
  return seen;
}

struct Drawn {
  std::vector<int64_t> negatives;
  SampleVerdict verdict;
};

template <typename I>
Drawn on_device(const std::vector<int64_t>& users, const Seen<I>& seen, const std::vector<int64_t>& candidates,
                uint64_t seed, uint64_t offset, bool report = true, int64_t first = 0) {
  const harness::Array<int64_t> u(users), c(candidates);
  const harness::Array<I> rowptr(seen.rowptr), col(seen.col);
  harness::Array<int64_t> negatives(static_cast<int64_t>(users.size()));
  harness::Array<SampleVerdict> verdict(1);
  const smore::SampleJob<I> job{u.data(), rowptr.data(), col.data(), col.size(), c.data(),
                                c.size(), seed,          offset,     first,      negatives.data()};
  smore::cuda::sample_negatives(job, u.size(), seen.users(), report ? verdict.data() : nullptr, nullptr);
  return {negatives.values(), verdict[0]};
}

template <typename I>
std::vector<int64_t> on_cpu(const std::vector<int64_t>& users, const Seen<I>& seen,
                            const std::vector<int64_t>& candidates, uint64_t seed, uint64_t offset, int64_t first = 0) {
  std::vector<int64_t> negatives(users.size());
  const smore::SampleJob<I> job{users.data(),
                                seen.rowptr.data(),
                                seen.col.data(),
                                static_cast<int64_t>(seen.col.size()),
                                candidates.data(),
                                static_cast<int64_t>(candidates.size()),
                                seed,
                                offset,
                                first,
                                negatives.data()};
  CHECK(smore::sample_range(job, 0, static_cast<int64_t>(users.size())) == -1);
  return negatives;
}

template <typename I>
void compare(int64_t n_items, int64_t every, int64_t size) {
  std::vector<int64_t> candidates;
  for (int64_t i = 1; i < n_items; i += every) candidates.push_back(i);
  Seen<I> seen = seen_by_users<I>(candidates, n_items);
  std::vector<int64_t> users = harness::random_ids(size, seen.users(), 7);
  if (every == 2) {  // whoever saw all odd items leaves no candidate
    for (int64_t& user : users) user = user == 13 ? 14 : user;
  }
  for (const uint64_t seed : {uint64_t{0}, uint64_t{0x123456789abcdef}}) {
    const std::vector<int64_t> wanted = on_cpu(users, seen, candidates, seed, 5);
    harness::each_order([&] {
      const Drawn got = on_device(users, seen, candidates, seed, 5);
      CHECK(got.negatives == wanted);
      CHECK(got.verdict.unknown_user > kNone && got.verdict.bad_candidate > kNone && got.verdict.no_choice > kNone);
    });
    CHECK(on_device(users, seen, candidates, seed, 5, false).negatives == wanted);
  }
}

}  // namespace

TEST(the_draws_of_the_cpu) {
  for (const int64_t size : {1, 63, 64, 65, 200}) {
    compare<int32_t>(90, 1, size);
    compare<int64_t>(90, 2, size);
  }
  compare<int32_t>(300, 3, 300);
}

TEST(parts_of_an_epoch_are_drawn_as_the_whole) {
  const std::vector<int64_t> candidates{9, 4, 4, 1, 7};  // in any order, one of them twice
  Seen<int32_t> seen;
  seen.add({1, 4});
  seen.add({});
  const int64_t far = (int64_t{1} << 32) - 20;  // the lower word of the counter overflows on the way
  std::vector<int64_t> users(50);
  for (size_t b = 0; b < users.size(); ++b) users[b] = static_cast<int64_t>(b % 2);
  for (const int64_t first : {int64_t{0}, far}) {
    const std::vector<int64_t> whole = on_cpu(users, seen, candidates, 3, 1, first);
    for (size_t cut = 0; cut < users.size(); cut += 7) {
      const std::vector<int64_t> rest(users.begin() + static_cast<int64_t>(cut), users.end());
      const std::vector<int64_t> wanted(whole.begin() + static_cast<int64_t>(cut), whole.end());
      const int64_t at = first + static_cast<int64_t>(cut);
      CHECK(on_cpu(rest, seen, candidates, 3, 1, at) == wanted);
      CHECK(on_device(rest, seen, candidates, 3, 1, true, at).negatives == wanted);
    }
  }
}

TEST(no_positions_or_no_seen_items) {
  const std::vector<int64_t> candidates{4, 9};
  Seen<int32_t> seen;
  seen.add({});
  CHECK(on_device({}, seen, candidates, 1, 0).negatives.empty());
  CHECK(on_device({0, 0, 0}, seen, candidates, 1, 0).negatives == on_cpu({0, 0, 0}, seen, candidates, 1, 0));
}

// In a capture nothing is checked: lists that are wrong give other candidates, and touch no other memory.
TEST(unchecked_lists_stay_within_their_memory) {
  const std::vector<int64_t> candidates{0, 2, 3, 7, 8, 9}, users{0, 1, 2, 3, 3, 2, 1, 0};
  for (const int64_t wrong :
       {int64_t{-1}, int64_t{1000}, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    for (size_t at = 0; at < 5; ++at) {
      Seen<int64_t> seen;
      for (int64_t user = 0; user < 4; ++user) seen.add({user, 5, 7});
      seen.rowptr[at] = wrong;
      for (const int64_t drawn : on_device(users, seen, candidates, 1, 0, false).negatives) {
        CHECK(drawn == -1 || std::count(candidates.begin(), candidates.end(), drawn) == 1);
      }
    }
  }
}

TEST(what_is_wrong_is_reported_with_its_first_position) {
  Seen<int64_t> seen;
  seen.add({0});
  seen.add({0, 1});
  const std::vector<int64_t> candidates{0, 1};
  harness::each_order([&] {
    Drawn got = on_device({0, 1, 0, 1}, seen, candidates, 0, 0);
    CHECK(got.verdict.no_choice == 1 && got.verdict.unknown_user > kNone);
    CHECK(got.negatives == std::vector<int64_t>({1, -1, 1, -1}));
    got = on_device({0, 0, 2, -1, 0}, seen, candidates, 0, 0);
    CHECK(got.verdict.unknown_user == 2 && got.verdict.no_choice > kNone);
    CHECK(got.negatives == std::vector<int64_t>({1, 1, -1, -1, 1}));
    std::vector<int64_t> many(500);
    for (int64_t c = 0; c < 500; ++c) many[static_cast<size_t>(c)] = c;
    CHECK(on_device({}, seen, many, 0, 0).verdict.bad_candidate > kNone);
    many[301] = -300;
    many[450] = -3;
    CHECK(on_device({}, seen, many, 0, 0).verdict.bad_candidate == 301);
    CHECK(on_device({0}, seen, {-1, 0}, 0, 0).verdict.bad_candidate == 0);
  });
  // As in a graph: nothing is reported, -1 stays.
  CHECK(on_device({1, 0}, seen, candidates, 0, 0, false).negatives == std::vector<int64_t>({-1, 1}));
}
