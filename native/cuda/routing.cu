// The router: Gumbel-max choice of a token class, its straight-through gradient, the stable
// counting sort by class, and the prompt that a class adds to C. The noise is that of
// core/philox.hpp, bit by bit: a block of four words to a lane, so 16 lanes serve 64 classes.
// No token is placed by an atomic: a warp counts a chunk of tokens in order (lanes with one class find each
// other by match), the last block of a sample turns its counts into first places, class by class
// and chunk by chunk, and further blocks of the kernel place their tokens from there.
#include "routing.cuh"
#include "sums.cuh"
#include "tickets.cuh"

namespace spr2q {
namespace cuda {
namespace {

constexpr int kRouteThreads = 128;
constexpr int kRouteTokens = kRouteThreads / kPhiloxLanes;  // of a block

__global__ void __launch_bounds__(kRouteThreads) route_kernel(Route a, const int64_t* more) {
  route_token(a, more, static_cast<int64_t>(blockIdx.x) * kRouteTokens + threadIdx.x / kPhiloxLanes);
}

constexpr int kGradTokens = 4;  // warps of a block, a token each

// glogits serves as the row's store: a lane reads back only what it wrote itself.
__global__ void __launch_bounds__(kGradTokens * kWarp) route_grad_kernel(RouteGrad a) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kGradTokens + warp_index();
  if (n >= a.batch * a.tokens) return;  // the whole warp
  const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
  const float* gprompt = a.gprompt.data + n * a.states;
  float* row = a.glogits.data + n * a.count;
  float largest = -kInfinity;
  for (int64_t k = lane_index(); k < a.count; k += kWarp) {
    float value = a.logits.data[n * a.count + k];
    if (a.mode == kSampled) {
      uint32_t words[4];
      const int64_t block = kPhiloxLanes * (k / kNoiseGroup) + k % kPhiloxLanes;
      philox_block(key, static_cast<uint32_t>(n % a.tokens), static_cast<uint32_t>(block), words);
      value += gumbel_of(words[k / kPhiloxLanes % 4]);
    }
    row[k] = value;
    largest = value > largest ? value : largest;
  }
  largest = warp_max(largest);
  const auto slope = [&](int64_t k) {
    float sum = 0.0f;
    const float* pool = a.pool.data + k * a.states;
    for (int64_t i = 0; i < a.states; ++i) sum = fmaf(pool[i], gprompt[i], sum);
    return sum;
  };
  float sum = 0.0f, mean = 0.0f;
  for (int64_t k = lane_index(); k < a.count; k += kWarp) {
    const float e = expf(row[k] - largest);
    sum += e;
    mean = fmaf(e, slope(k), mean);
  }
  sum = warp_sum(sum);
  mean = warp_sum(mean) / sum;
  for (int64_t k = lane_index(); k < a.count; k += kWarp) {
    row[k] = expf(row[k] - largest) / sum * (slope(k) - mean);
  }
}

// ---- The sort ---------------------------------------------------------------------------------

constexpr int kChunkTokens = 256;    // of one warp
constexpr int kSortThreads = 1024;
constexpr int64_t kMostPlaces = int64_t{1} << 31;  // of a sample: they are numbered in 32 bits

struct Sort {
  SortTokens a;
  int32_t* places;  // (batch, chunks, count): counts, then the place of the next token
  int64_t chunks;
};

// The chunk's tokens, 32 at a time, with the lanes of equal class; visit(token, class, peers).
template <class Visit>
SPR2Q_DEVICE void walk_chunk(const Sort& s, int64_t sample, int64_t chunk, const Visit& visit) {
  for (int i = 0; i < kChunkTokens; i += kWarp) {
    const int64_t token = chunk * kChunkTokens + i + lane_index();
    const bool inside = token < s.a.tokens;
    const int label = inside ? static_cast<int>(clamp_class(
                                   s.a.classes.data[sample * s.a.tokens + token], s.a.count))
                             : -1;
    const unsigned peers = __match_any_sync(kAllLanes, label);
    visit(token, label, peers);
    __syncwarp();
  }
}

SPR2Q_DEVICE unsigned lanes_below() { return (1u << lane_index()) - 1; }

// Counts (chunk, class) of a sample -> first places, in the order of (class, chunk), by a block.
SPR2Q_DEVICE void first_places(const Sort& s, int64_t sample) {
  __shared__ int32_t sums[2][kSortThreads];
  int32_t* places = s.places + sample * s.chunks * s.a.count;
  const int chunks = static_cast<int>(s.chunks), count = static_cast<int>(s.a.count);
  const int n = chunks * count, share = (n + kSortThreads - 1) / kSortThreads;
  const int thread = static_cast<int>(threadIdx.x);
  const int begin = thread * share, end = begin + share < n ? begin + share : n;
  const auto index = [&](int i) { return i % chunks * count + i / chunks; };
  int32_t sum = 0;
  for (int i = begin; i < end; ++i) sum += places[index(i)];
  int from = 0;
  sums[0][thread] = sum;
  for (int step = 1; step < kSortThreads; step *= 2, from ^= 1) {
    __syncthreads();
    const int32_t before = thread >= step ? sums[from][thread - step] : 0;
    sums[from ^ 1][thread] = sums[from][thread] + before;
  }
  __syncthreads();
  int32_t place = sums[from][thread] - sum;
  for (int i = begin; i < end; ++i) {
    const int32_t tokens = places[index(i)];
    places[index(i)] = place;
    place += tokens;
  }
}

SPR2Q_DEVICE void count_chunk(const Sort& s, int64_t sample, int64_t chunk) {
  int32_t* counts = s.places + (sample * s.chunks + chunk) * s.a.count;
  for (int64_t k = lane_index(); k < s.a.count; k += kWarp) counts[k] = 0;
  __syncwarp();
  walk_chunk(s, sample, chunk, [&](int64_t, int label, unsigned peers) {
    if (label >= 0 && (peers & lanes_below()) == 0) counts[label] += __popc(peers);
  });
}

SPR2Q_DEVICE void place_chunk(const Sort& s, int64_t sample, int64_t chunk) {
  const int64_t first = sample * s.a.tokens;
  int32_t* places = s.places + (sample * s.chunks + chunk) * s.a.count;
  walk_chunk(s, sample, chunk, [&](int64_t token, int label, unsigned peers) {
    if (label >= 0) {
      const int64_t place = first + places[label] + __popc(peers & lanes_below());
      s.a.order.data[place] = static_cast<int32_t>(first + token);
      if (s.a.inverse) s.a.inverse.data[first + token] = static_cast<int32_t>(place);
    }
    __syncwarp();  // all have read the place before it moves on
    if (label >= 0 && (peers & lanes_below()) == 0) places[label] += __popc(peers);
  });
}

// A chunk for every warp, twice: the blocks of the first half of the tickets count, the last one of
// a sample turns counts into places, and those of the second half wait for that and place.
__global__ void __launch_bounds__(kSortThreads) sort_kernel(Sort s, int blocks, Tickets tickets) {
  const int64_t half = s.a.batch * blocks, ticket = take_ticket(tickets);
  const bool counts = ticket < half;
  const int64_t at = counts ? ticket : ticket - half, sample = at / blocks;
  const int64_t chunk = at % blocks * (kSortThreads / kWarp) + warp_index();
  unsigned *arrivals = tickets.flags, *placed = tickets.flags + s.a.batch;
  if (counts) {
    if (chunk < s.chunks) count_chunk(s, sample, chunk);  // the whole warp
    if (arrives_last(arrivals + sample, static_cast<unsigned>(blocks))) {
      first_places(s, sample);
      raise(placed + sample);
    }
  } else {
    if (threadIdx.x == 0) wait_for(placed + sample);
    __syncthreads();
    if (chunk < s.chunks) place_chunk(s, sample, chunk);
  }
  put_back(tickets);
}

// ---- The prompt -------------------------------------------------------------------------------

__global__ void __launch_bounds__(kElementBlock) add_prompt_kernel(AddPrompt a) {
  for (int64_t i = first_element(); i < a.rows * a.states; i += element_stride()) {
    a.y.data[i] = prompted(a, i / a.states, i % a.states);
  }
}

// Column (class, state): the rows of that class.
struct PromptTerm {
  static constexpr int kOutputs = 1;
  static constexpr bool kFinish = false;
  AddPromptGrad a;
  struct Cell {
    int64_t label, state;
  };
  __device__ Cell start(int64_t, int64_t column) const {
    return {column / a.states, column % a.states};
  }
  __device__ void add(const Cell& cell, int64_t row, int64_t, Sum* sums) const {
    if (clamp_class(a.classes.data[row], a.count) != cell.label) return;
    add_to(sums[0], a.gy.data[row * a.states + cell.state]);
  }
  __device__ void store(int64_t, int, int64_t column, float sum) const {
    a.gpool.data[column] = sum;
  }
};

}  // namespace

void route(const Route& a) {
  launch(route_kernel, dim3(grid_size(divide_up(a.batch * a.tokens, kRouteTokens))),
         dim3(kRouteThreads), 0, a, noise_cell());
}

void route_grad(const RouteGrad& a) {
  launch(route_grad_kernel, dim3(grid_size(divide_up(a.batch * a.tokens, kGradTokens))),
         dim3(kGradTokens * kWarp), 0, a);
}

void sort_tokens(const SortTokens& a) {
  Scratch scratch;
  const int64_t chunks = divide_up(a.tokens, kChunkTokens);
  if (chunks * a.count >= kMostPlaces) {
    return fail(kCudaBadArgument, "sort_tokens: 2^31 counts or more of tokens and classes");
  }
  const Sort sort{a, scratch.take<int32_t>(a.batch * chunks * a.count), chunks};
  const int64_t blocks = divide_up(chunks, kSortThreads / kWarp);
  launch(sort_kernel, dim3(grid_size(2 * a.batch * blocks)), dim3(kSortThreads), 0, sort, blocks,
         tickets(2 * a.batch));
}

void add_prompt(const AddPrompt& a) {
  launch(add_prompt_kernel, dim3(element_grid(a.rows * a.states)), dim3(kElementBlock), 0, a);
}

void add_prompt_grad(const AddPromptGrad& a) {
  Scratch scratch;
  column_sums(scratch, PromptTerm{a}, a.rows, a.count * a.states);
}

}  // namespace cuda
}  // namespace spr2q
