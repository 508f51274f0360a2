// DOBI, the initial search of quantiser bounds among 100 shrinking ranges. Three launches: least
// and most value of each segment (the tensor, or a row) by chunks; the squared error of every
// candidate by chunks, in double, added in a fixed order; the choice. Calibration runs it a few
// hundred times in all, so it is made to be exact, not fast.
#include "../core/grid.hpp"
#include "device.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 8192;  // elements of a block
constexpr int kPerBlock = 10;     // candidates that a block measures over its chunk
static_assert(kDobiCandidates % kPerBlock == 0, "candidates are shared out evenly");
constexpr int kChoiceThreads = 128;
static_assert(kChoiceThreads >= kDobiCandidates, "a thread for every candidate");

struct Search {
  Dobi a;
  float2* ranges;  // (segments, chunks), then the first of each segment: (least, most), or for
                   // kColumn (largest x - lower, largest |x|)
  double* errors;  // (segments, candidates, chunks)
  int64_t size, chunks, segments;
};

SPR2Q_DEVICE float2 wider(const Search& s, float2 a, float2 b) {
  if (s.a.granularity != kColumn) a.x = b.x < a.x ? b.x : a.x;
  else a.x = b.x > a.x ? b.x : a.x;
  a.y = b.y > a.y ? b.y : a.y;
  return a;
}

// A NaN is passed over, unless it is a segment's first value: it then stays, as in the reference.
__global__ void __launch_bounds__(kThreads) range_kernel(Search s) {
  __shared__ float2 found[kThreads];
  const int64_t segment = blockIdx.x / s.chunks, chunk = blockIdx.x % s.chunks;
  const float* x = s.a.x.data + segment * s.size;
  const bool by_column = s.a.granularity == kColumn;
  float2 mine = by_column ? make_float2(0.0f, 0.0f) : make_float2(x[0], x[0]);
  const int64_t end = (chunk + 1) * kChunk < s.size ? (chunk + 1) * kChunk : s.size;
  for (int64_t i = chunk * kChunk + threadIdx.x; i < end; i += kThreads) {
    const float value = x[i];
    mine = wider(s, mine, by_column ? make_float2(value - s.a.lower.data[i % s.a.columns],
                                                  fabsf(value))
                                    : make_float2(value, value));
  }
  found[threadIdx.x] = mine;
  for (unsigned step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) {
      found[threadIdx.x] = wider(s, found[threadIdx.x], found[threadIdx.x + step]);
    }
  }
  if (threadIdx.x == 0) s.ranges[blockIdx.x] = found[0];
}

// The chunks' ranges of a segment into the first of them: a warp each.
__global__ void __launch_bounds__(kWarp) merge_ranges_kernel(Search s) {
  float2* ranges = s.ranges + static_cast<int64_t>(blockIdx.x) * s.chunks;
  float2 mine = ranges[0];
  for (int64_t i = threadIdx.x; i < s.chunks; i += kWarp) mine = wider(s, mine, ranges[i]);
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const float2 other = make_float2(__shfl_xor_sync(kAllLanes, mine.x, step),
                                     __shfl_xor_sync(kAllLanes, mine.y, step));
    mine = wider(s, mine, other);
  }
  if (threadIdx.x == 0) ranges[0] = mine;
}

SPR2Q_DEVICE Grid candidate_grid(const Search& s, float2 range, int candidate) {
  if (s.a.granularity == kColumn) {
    return grid_from(0.0f, dobi_range(range.x, range.y, candidate), s.a.bits);
  }
  const Bounds bounds = dobi_candidate(range.x, range.y, candidate, s.a.one_sided != 0);
  return grid_between(bounds.lower, bounds.upper, s.a.bits);
}

__global__ void __launch_bounds__(kThreads, 2) error_kernel(Search s) {
  const int64_t segment = blockIdx.x / s.chunks, chunk = blockIdx.x % s.chunks;
  const float* x = s.a.x.data + segment * s.size;
  const float2 range = s.ranges[segment * s.chunks];
  const int64_t end = (chunk + 1) * kChunk < s.size ? (chunk + 1) * kChunk : s.size;
  for (int i = 0; i < kPerBlock; ++i) {
    const int candidate = static_cast<int>(blockIdx.y) * kPerBlock + i;
    Grid grid = candidate_grid(s, range, candidate);
    double error = 0.0;
    for (int64_t at = chunk * kChunk + threadIdx.x; at < end; at += kThreads) {
      if (s.a.granularity == kColumn) grid.lower = s.a.lower.data[at % s.a.columns];
      const float value = x[at];
      const double miss = static_cast<double>(value) -
                          static_cast<double>(value_on(grid, code_on(grid, value)));
      error += miss * miss;
    }
    error = block_sum<kThreads>(error);
    if (threadIdx.x == 0) {
      s.errors[(segment * kDobiCandidates + candidate) * s.chunks + chunk] = error;
    }
  }
}

// The widest candidate of least error; one block a segment.
__global__ void __launch_bounds__(kChoiceThreads) choice_kernel(Search s) {
  __shared__ double errors[kDobiCandidates];
  const int64_t segment = blockIdx.x;
  if (threadIdx.x < kDobiCandidates) {
    const double* parts = s.errors + (segment * kDobiCandidates + threadIdx.x) * s.chunks;
    double error = 0.0;
    for (int64_t i = 0; i < s.chunks; ++i) error += parts[i];
    errors[threadIdx.x] = error;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  int best = 0;
  double least = s.a.granularity == kColumn ? __builtin_inf() : errors[0];
  for (int i = 0; i < kDobiCandidates; ++i) {
    if (errors[i] < least) {
      least = errors[i];
      best = i;
    }
  }
  const float2 range = s.ranges[segment * s.chunks];
  if (s.a.granularity == kColumn) {
    s.a.upper.data[0] = dobi_range(range.x, range.y, best);
  } else {
    const Bounds bounds = dobi_candidate(range.x, range.y, best, s.a.one_sided != 0);
    s.a.lower.data[segment] = bounds.lower;
    s.a.upper.data[segment] = bounds.upper;
  }
}

}  // namespace

void dobi(const Dobi& a) {
  Scratch scratch;
  const int64_t segments = a.granularity == kRow ? a.rows : 1;
  const int64_t size = a.rows * a.columns / segments, chunks = divide_up(size, kChunk);
  const Search search{a,
                      scratch.take<float2>(segments * chunks),
                      scratch.take<double>(segments * chunks * kDobiCandidates),
                      size,
                      chunks,
                      segments};
  const dim3 grid(grid_size(segments * chunks));
  launch(range_kernel, grid, dim3(kThreads), 0, search);
  launch(merge_ranges_kernel, dim3(grid_size(segments)), dim3(kWarp), 0, search);
  launch(error_kernel, dim3(grid.x, kDobiCandidates / kPerBlock), dim3(kThreads), 0, search);
  launch(choice_kernel, dim3(grid_size(segments)), dim3(kChoiceThreads), 0, search);
}

}  // namespace cuda
}  // namespace spr2q
