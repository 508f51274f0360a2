// Fast DOBI; candidates and choice as in native/ops/dobi.cpp. The 100 candidates lie in the lanes
// of seven vectors of 16 (two or four times as many narrower ones), the elements pass one by one:
// no tails, whatever the length of a row, and every candidate sums in the order of the elements.
// The error of an element is (u' - q)^2 in units of the step, with u' the position before
// clamping: x - value = step * (u' - q), inside the range and outside. Sums run in float over
// kSumBlock elements, then in double; chunks are added in order. The picks can differ from the
// reference only between candidates whose errors agree to about 1e-6.
#include "../core/grid.hpp"
#include "sweep.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int kGroup = 7;                       // vectors of candidates summed at a time
constexpr int kRoom = 112;                      // candidates, rounded up to whole groups
constexpr int64_t kSumBlock = 512;              // elements per float sum: 2 KB, stays in L1
constexpr int64_t kChunk = 16 * kSumBlock;      // least elements per chunk: 0.1 ms of work
constexpr int64_t kMostChunks = 1024;           // bounds the partial sums to 1 MB
static_assert(kRoom % (kGroup * kLanes) == 0 && kRoom >= kDobiCandidates, "whole groups");

struct Candidates {
  Bounds bounds[kRoom];
  float lower[kRoom], inverse[kRoom], step[kRoom], levels;
  void set(int i, Bounds b, const Grid& grid) {
    bounds[i] = b;
    lower[i] = grid.lower;
    inverse[i] = grid.inverse;
    step[i] = grid.step;
    levels = grid.levels;
  }
};

// Round half to even of 0 ... 255, and a + d * d; without vector instructions for them the two
// generic ones would call the C library for each lane.
static inline VecF nearest(VecF u) {
#if defined(__AVX512F__) || defined(__AVX2__) || defined(SPR2Q_NEON)
  return round_even(u);
#else
  const VecF big = splat(12582912.0f);  // 1.5 * 2^23: the sum keeps the integer bits alone
  return (u + big) - big;
#endif
}
static inline VecF add_square(VecF d, VecF a) {
#if defined(__AVX512F__) || defined(__AVX2__) || defined(SPR2Q_NEON)
  return fma(d, d, a);
#else
  return d * d + a;
#endif
}

// Adds to sums[i] the squared errors of n <= kSumBlock values under candidate i, in steps^2.
static void score(const float* x, int64_t n, const Candidates& all, double* sums) {
  const VecF zero = splat(0.0f), top = splat(all.levels);
  for (int first = 0; first < kRoom; first += kGroup * kLanes) {
    VecF lower[kGroup], inverse[kGroup], total[kGroup];
    for (int g = 0; g < kGroup; ++g) {
      lower[g] = load(all.lower + first + g * kLanes);
      inverse[g] = load(all.inverse + first + g * kLanes);
      total[g] = zero;
    }
    for (int64_t i = 0; i < n; ++i) {
      const VecF value = splat(x[i]);
      for (int g = 0; g < kGroup; ++g) {
        const VecF u = (value - lower[g]) * inverse[g];
        total[g] = add_square(u - nearest(min(max(u, zero), top)), total[g]);
      }
    }
    for (int g = 0; g < kGroup; ++g) {
      float lanes[kLanes];
      store(lanes, total[g]);
      for (int i = 0; i < kLanes; ++i) sums[first + g * kLanes + i] += lanes[i];
    }
  }
}

static void score_all(const float* x, int64_t n, const Candidates& all, double* sums) {
  for (int64_t i = 0; i < n; i += kSumBlock) {
    score(x + i, n - i < kSumBlock ? n - i : kSumBlock, all, sums);
  }
}

// Index of the first least error.
static int best_of(const Candidates& all, const double* sums) {
  int best = 0;
  double best_error = __builtin_inf();
  for (int i = 0; i < kDobiCandidates; ++i) {
    const double error = sums[i] * all.step[i] * all.step[i];
    if (error < best_error) {
      best = i;
      best_error = error;
    }
  }
  return best;
}

struct Extent {
  float least, most;
};

static Extent extent(const float* x, int64_t n) {
  VecF low = splat(x[0]), high = splat(x[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VecF v = load(x + i);
    low = min(v, low);  // NaN is skipped, but for the first value: as the reference
    high = max(v, high);
  }
  float lows[kLanes], highs[kLanes];
  store(lows, low);
  store(highs, high);
  Extent e = {lows[0], highs[0]};
  for (int lane = 1; lane < kLanes; ++lane) {
    e.least = lows[lane] < e.least ? lows[lane] : e.least;
    e.most = highs[lane] > e.most ? highs[lane] : e.most;
  }
  for (; i < n; ++i) {
    e.least = x[i] < e.least ? x[i] : e.least;
    e.most = x[i] > e.most ? x[i] : e.most;
  }
  return e;
}

static void set_candidates(Candidates& all, Extent e, const Dobi& a) {
  for (int i = 0; i < kRoom; ++i) {
    const int candidate = i < kDobiCandidates ? i : kDobiCandidates - 1;
    const Bounds bounds = dobi_candidate(e.least, e.most, candidate, a.one_sided != 0);
    all.set(i, bounds, grid_between(bounds.lower, bounds.upper, a.bits));
  }
}

// Elements per chunk, by n alone.
static int64_t chunk_of(int64_t n) {
  const int64_t even = (n + kMostChunks - 1) / kMostChunks;
  const int64_t blocks = (even + kSumBlock - 1) / kSumBlock;
  return blocks * kSumBlock > kChunk ? blocks * kSumBlock : kChunk;
}

// Scores all chunks of n elements by body(begin, end, sums) and adds them in order to `sums`.
template <class Body>
static void score_chunks(int64_t n, double* sums, Body body) {
  const int64_t grain = chunk_of(n), chunks = (n + grain - 1) / grain;
  double* partials = scratch<double>(0, chunks * kRoom);
  std::memset(partials, 0, static_cast<size_t>(chunks * kRoom) * sizeof(double));
  parallel_for(n, grain, [=](int64_t begin, int64_t end) {
    body(begin, end, partials + begin / grain * kRoom);
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int i = 0; i < kRoom; ++i) sums[i] += partials[chunk * kRoom + i];
  }
}

static void search_tensor(const Dobi& a) {
  const float* x = a.x.data;
  const int64_t n = a.rows * a.columns, grain = chunk_of(n), chunks = (n + grain - 1) / grain;
  Extent* extents = scratch<Extent>(1, chunks);
  parallel_for(n, grain, [=](int64_t begin, int64_t end) {
    extents[begin / grain] = extent(x + begin, end - begin);
  });
  Extent e = extents[0];
  for (int64_t i = 1; i < chunks; ++i) {
    e.least = extents[i].least < e.least ? extents[i].least : e.least;
    e.most = extents[i].most > e.most ? extents[i].most : e.most;
  }
  Candidates all;
  set_candidates(all, e, a);
  double sums[kRoom] = {};
  score_chunks(n, sums, [&](int64_t begin, int64_t end, double* partial) {
    score_all(x + begin, end - begin, all, partial);
  });
  const Bounds best = all.bounds[best_of(all, sums)];
  a.lower.data[0] = best.lower;
  a.upper.data[0] = best.upper;
}

static void search_rows(const Dobi& a) {
  const int64_t columns = a.columns;
  parallel_for(a.rows, columns < kChunk ? kChunk / columns : 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = a.x.data + row * columns;
      Candidates all;
      set_candidates(all, extent(x, columns), a);
      double sums[kRoom] = {};
      score_all(x, columns, all, sums);
      const Bounds best = all.bounds[best_of(all, sums)];
      a.lower.data[row] = best.lower;
      a.upper.data[row] = best.upper;
    }
  });
}

// Largest x - lower and largest |x|, neither below 0.
static Extent column_extent(const Dobi& a) {
  const int64_t columns = a.columns, grain = pattern_grain(columns);
  const int64_t chunks = (a.rows + grain - 1) / grain;
  const Pattern offsets = repeat(a.lower.data, columns, 1);
  const float* x = a.x.data;
  Extent* extents = scratch<Extent>(2, chunks);
  parallel_for(a.rows, grain, [=](int64_t begin, int64_t end) {
    VecF above = splat(0.0f), size = splat(0.0f);
    sweep_pattern(offsets.size, begin * columns, end * columns,
                  [&](int64_t i, int64_t j, auto lanes) {
                    const VecF v = lanes.load(x + i);
                    above = max(v - lanes.load(offsets.data + j), above);
                    size = max(max(v, splat(0.0f) - v), size);
                  });
    extents[begin / grain] = {largest(above), largest(size)};
  });
  Extent e = {0.0f, 0.0f};
  for (int64_t i = 0; i < chunks; ++i) {
    e.least = extents[i].least > e.least ? extents[i].least : e.least;
    e.most = extents[i].most > e.most ? extents[i].most : e.most;
  }
  return e;
}

static void search_columns(const Dobi& a) {
  const Extent e = column_extent(a);
  Candidates all;
  for (int i = 0; i < kRoom; ++i) {
    const int candidate = i < kDobiCandidates ? i : kDobiCandidates - 1;
    const float range = dobi_range(e.least, e.most, candidate);
    all.set(i, {0.0f, range}, grid_from(0.0f, range, a.bits));
  }
  double sums[kRoom] = {};
  const int64_t columns = a.columns;
  score_chunks(a.rows * columns, sums, [&](int64_t begin, int64_t end, double* partial) {
    float above[kSumBlock];  // x - lower of a block
    int64_t column = begin % columns;
    for (int64_t block = begin; block < end; block += kSumBlock) {
      const int64_t n = end - block < kSumBlock ? end - block : kSumBlock;
      for (int64_t i = 0; i < n; ++i) {
        above[i] = a.x.data[block + i] - a.lower.data[column];
        column = column + 1 < columns ? column + 1 : 0;
      }
      score(above, n, all, partial);
    }
  });
  a.upper.data[0] = all.bounds[best_of(all, sums)].upper;
}

}  // namespace

void dobi(const Dobi& a) {
  if (a.granularity == kTensor) return search_tensor(a);
  if (a.granularity == kRow) return search_rows(a);
  search_columns(a);
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
