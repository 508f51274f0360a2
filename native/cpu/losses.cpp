// Fast losses of training with their gradients. Sums run over fixed chunks of values: float vectors
// over short blocks inside a chunk, double over the blocks, chunks added in order, so that the loss
// is good to a few float32 ulps and the same on any number of threads.
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kChunk = 32768;  // values of one partial sum: 384 KiB read and written
constexpr int64_t kBlock = 1024;   // values summed in float before they go to double
enum Slot { kPartials };

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls body(i, lanes) for consecutive groups of [begin, end).
template <class Body>
inline void each_group(int64_t begin, int64_t end, Body body) {
  for (int64_t i = begin; i < end; i += kLanes) {
    body(i, static_cast<int>(least(kLanes, end - i)));
  }
}

inline VecF load_group(const float* p, int n) { return n == kLanes ? load(p) : load_first(p, n); }
inline void store_group(float* p, VecF a, int n) {
  if (n == kLanes) {
    store(p, a);
  } else {
    store_first(p, a, n);
  }
}

}  // namespace

void l1_loss(const L1Loss& a) {
  const float share = static_cast<float>(1.0 / static_cast<double>(a.n));
  const VecF zero = splat(0.0f), plus = splat(share), minus = splat(-share);
  double* partials = scratch<double>(kPartials, (a.n + kChunk - 1) / kChunk);
  parallel_for(a.n, kChunk, [&](int64_t begin, int64_t end) {
    double total = 0.0;
    for (int64_t block = begin; block < end; block += kBlock) {
      VecF sums = zero;
      each_group(block, least(block + kBlock, end), [&](int64_t i, int n) {
        const VecF d = load_group(a.x.data + i, n) - load_group(a.target.data + i, n);
        sums = sums + max(d, zero - d);
        // d <= 0: minus or, where also 0 <= d, zero.
        const VecF below = where_le(zero, d, zero, minus);
        store_group(a.gx.data + i, where_le(d, zero, below, plus), n);
      });
      total += sum(sums);
    }
    partials[begin / kChunk] = total;
  });
  double total = 0.0;
  for (int64_t c = 0; c * kChunk < a.n; ++c) total += partials[c];
  a.loss.data[0] = static_cast<float>(total / static_cast<double>(a.n));
}

void feature_loss(const FeatureLoss& a) {
  const int64_t size = a.n / a.batch, chunks = (size + kChunk - 1) / kChunk;
  double* partials = scratch<double>(kPartials, 2 * chunks);  // error and energy of each chunk
  double loss = 0.0;
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    const float* x = a.x.data + sample * size;
    const float* target = a.target.data + sample * size;
    float* gx = a.gx.data + sample * size;
    parallel_for(size, kChunk, [&](int64_t begin, int64_t end) {
      double error = 0.0, energy = 0.0;
      for (int64_t block = begin; block < end; block += kBlock) {
        VecF errors = splat(0.0f), energies = splat(0.0f);
        each_group(block, least(block + kBlock, end), [&](int64_t i, int n) {
          const VecF t = load_group(target + i, n), d = load_group(x + i, n) - t;
          errors = errors + d * d;
          energies = energies + t * t;
        });
        error += sum(errors);
        energy += sum(energies);
      }
      partials[2 * (begin / kChunk)] = error;
      partials[2 * (begin / kChunk) + 1] = energy;
    });
    double error = 0.0, energy = 0.0;
    for (int64_t c = 0; c < chunks; ++c) {
      error += partials[2 * c];
      energy += partials[2 * c + 1];
    }
    if (energy == 0.0) energy = 1.0;
    loss += error / energy;
    const VecF factor = splat(static_cast<float>(2.0 / (energy * static_cast<double>(a.batch))));
    parallel_for(size, kChunk, [&](int64_t begin, int64_t end) {
      each_group(begin, end, [&](int64_t i, int n) {
        const VecF d = load_group(x + i, n) - load_group(target + i, n);
        store_group(gx + i, factor * d, n);
      });
    });
  }
  a.loss.data[0] = static_cast<float>(loss / static_cast<double>(a.batch));
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
