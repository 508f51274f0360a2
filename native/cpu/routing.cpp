// Routing, fast: one task per run of tokens. The noise comes from core/philox.hpp, whose loops the
// compiler turns into this instruction set's vectors; choices are equal on every backend because
// noise and logits are. Sorting counts and places by fixed runs of tokens, so it is parallel within
// a sample too; gradients of the pool are kept per run and added in order.
#include "../core/philox.hpp"
#include "simd.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

constexpr int64_t kTokensPerChunk = 256;   // tokens a task routes: about 40 microseconds with noise
constexpr int64_t kTokensPerRun = 4096;    // tokens a task counts and places when sorting
constexpr int64_t kPoolPartials = 8;       // pool gradients kept apart, then added in order

inline int64_t clamp_class(int32_t label, int64_t count) {
  return label < 0 ? 0 : label >= count ? count - 1 : label;
}
inline int64_t chunks_of(int64_t n, int64_t chunk) { return (n + chunk - 1) / chunk; }

// row = logits (+ noise), padded with -infinity-like values to whole vectors; returns the padded
// length.
inline int64_t noisy(const float* logits, int64_t count, int64_t mode, const NoiseKey& key,
                     int64_t token, float* row) {
  if (mode == kSampled) {
    gumbel_noise(key, token, count, row);
    for (int64_t k = 0; k < count; ++k) row[k] = logits[k] + row[k];
  } else {
    for (int64_t k = 0; k < count; ++k) row[k] = logits[k];
  }
  const int64_t padded = chunks_of(count, kLanes) * kLanes;
  for (int64_t k = count; k < padded; ++k) row[k] = -3.4e38f;
  return padded;
}

// The first index of the largest value, by the comparisons of the reference (a NaN never wins).
inline int32_t first_largest(const float* row, int64_t count, int64_t padded) {
  if (!(row[0] == row[0])) return 0;
  VecF best = load(row);
  for (int64_t k = kLanes; k < padded; k += kLanes) best = max(load(row + k), best);
  const float top = largest(best);
  for (int64_t k = 0; k < count; ++k) {
    if (row[k] == top) return static_cast<int32_t>(k);
  }
  // Only with NaN among the logits: go one by one.
  int64_t at = 0;
  for (int64_t k = 1; k < count; ++k) at = row[k] > row[at] ? k : at;
  return static_cast<int32_t>(at);
}

}  // namespace

void route(const Route& a) {
  parallel_for(a.batch * a.tokens, kTokensPerChunk, [&](int64_t begin, int64_t end) {
    float* row = scratch<float>(1, a.count + kLanes);
    for (int64_t n = begin; n < end; ++n) {
      const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
      const int64_t padded =
          noisy(a.logits.data + n * a.count, a.count, a.mode, key, n % a.tokens, row);
      a.classes.data[n] = first_largest(row, a.count, padded);
    }
  });
}

void route_grad(const RouteGrad& a) {
  // The pool transposed, (states, padded classes): then <pool[k], gprompt> has classes in the lanes.
  const int64_t width = chunks_of(a.count, kLanes) * kLanes;
  float* pool = scratch<float>(0, a.states * width);
  for (int64_t i = 0; i < a.states; ++i) {
    for (int64_t k = 0; k < width; ++k) {
      pool[i * width + k] = k < a.count ? a.pool.data[k * a.states + i] : 0.0f;
    }
  }
  parallel_for(a.batch * a.tokens, kTokensPerChunk, [&](int64_t begin, int64_t end) {
    float* row = scratch<float>(1, 2 * width);
    float* dc = row + width;
    for (int64_t n = begin; n < end; ++n) {
      const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
      noisy(a.logits.data + n * a.count, a.count, a.mode, key, n % a.tokens, row);
      const float* gprompt = a.gprompt.data + n * a.states;
      VecF best = load(row);
      for (int64_t k = kLanes; k < width; k += kLanes) best = max(best, load(row + k));
      const VecF top = splat(largest(best));
      VecF total = splat(0.0f), weighted = splat(0.0f);
      for (int64_t k = 0; k < width; k += kLanes) {
        VecF c = splat(0.0f);
        for (int64_t i = 0; i < a.states; ++i) {
          c = fma(splat(gprompt[i]), load(pool + i * width + k), c);
        }
        const VecF s = exp(load(row + k) - top);
        total = total + s;
        weighted = fma(s, c, weighted);
        store(row + k, s);
        store(dc + k, c);
      }
      const VecF share = splat(1.0f / sum(total));
      const VecF mean = splat(sum(weighted)) * share;
      for (int64_t k = 0; k < width; k += kLanes) {
        store(row + k, load(row + k) * share * (load(dc + k) - mean));
      }
      for (int64_t k = 0; k < a.count; ++k) a.glogits.data[n * a.count + k] = row[k];
    }
  });
}

void sort_tokens(const SortTokens& a) {
  const int64_t runs = chunks_of(a.tokens, kTokensPerRun), all = a.batch * runs;
  // place[sample][run][class]: how many of the run, then where its first one goes.
  int32_t* place = scratch<int32_t>(0, all * a.count);
  const auto each = [&](int64_t task, auto body) {
    const int64_t sample = task / runs, first = task % runs * kTokensPerRun;
    const int64_t last = first + kTokensPerRun < a.tokens ? first + kTokensPerRun : a.tokens;
    const int32_t* classes = a.classes.data + sample * a.tokens;
    int32_t* count = place + task * a.count;
    for (int64_t n = first; n < last; ++n) {
      body(sample, n, count + clamp_class(classes[n], a.count));
    }
  };
  std::memset(place, 0, sizeof(int32_t) * static_cast<size_t>(all * a.count));
  parallel_for(all, 1, [&](int64_t task, int64_t) {
    each(task, [](int64_t, int64_t, int32_t* at) { ++*at; });
  });
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    int32_t next = 0;
    for (int64_t k = 0; k < a.count; ++k) {
      for (int64_t run = 0; run < runs; ++run) {
        int32_t& entry = place[(sample * runs + run) * a.count + k];
        const int32_t here = entry;
        entry = next;
        next += here;
      }
    }
  }
  parallel_for(all, 1, [&](int64_t task, int64_t) {
    each(task, [&](int64_t sample, int64_t n, int32_t* at) {
      a.order.data[sample * a.tokens + (*at)++] = static_cast<int32_t>(sample * a.tokens + n);
    });
  });
}

void add_prompt(const AddPrompt& a) {
  parallel_for(a.rows, kTokensPerRun, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const float* prompt = a.pool.data + clamp_class(a.classes.data[n], a.count) * a.states;
      const float* c = a.c.data + n * a.states;
      float* y = a.y.data + n * a.states;
      for (int64_t i = 0; i < a.states; ++i) y[i] = c[i] + prompt[i];
    }
  });
}

void add_prompt_grad(const AddPromptGrad& a) {
  const int64_t size = a.count * a.states;
  double* partial = scratch<double>(0, kPoolPartials * size);
  std::memset(partial, 0, sizeof(double) * static_cast<size_t>(kPoolPartials * size));
  parallel_for(kPoolPartials, 1, [&](int64_t run, int64_t) {
    double* pool = partial + run * size;
    for (int64_t n = run * a.rows / kPoolPartials; n < (run + 1) * a.rows / kPoolPartials; ++n) {
      double* to = pool + clamp_class(a.classes.data[n], a.count) * a.states;
      for (int64_t i = 0; i < a.states; ++i) to[i] += a.gy.data[n * a.states + i];
    }
  });
  for (int64_t i = 0; i < size; ++i) {
    double total = 0;
    for (int64_t run = 0; run < kPoolPartials; ++run) total += partial[run * size + i];
    a.gpool.data[i] = static_cast<float>(total);
  }
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
