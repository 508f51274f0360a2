// The router, plain: Gumbel-max choice of a token class, the straight-through gradient of that
// choice, the stable counting sort by class, and the prompt that a class adds to C.
// logits (batch*tokens, count), pool (count, states), classes and order (batch*tokens).
#include <cmath>
#include <vector>

#include "../core/ops.hpp"
#include "../core/philox.hpp"

namespace spr2q {
namespace ops {
namespace {

int64_t clamp_class(int32_t label, int64_t count) {
  return label < 0 ? 0 : label >= count ? count - 1 : label;
}

// The row's logits plus noise, in float32: what the choice is made on.
std::vector<float> noisy(const float* logits, int64_t count, int64_t mode, const NoiseKey& key,
                         int64_t token) {
  std::vector<float> row(static_cast<size_t>(count));
  if (mode == kSampled) gumbel_noise(key, token, count, row.data());
  for (int64_t k = 0; k < count; ++k) {
    float& value = row[static_cast<size_t>(k)];
    value = mode == kSampled ? logits[k] + value : logits[k];
  }
  return row;
}

}  // namespace

void route(const Route& a) {
  for (int64_t n = 0; n < a.batch * a.tokens; ++n) {
    const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
    const std::vector<float> row =
        noisy(a.logits.data + n * a.count, a.count, a.mode, key, a.first + n % a.tokens);
    size_t best = 0;
    for (size_t k = 1; k < row.size(); ++k) {
      if (row[k] > row[best]) best = k;
    }
    a.classes.data[n] = static_cast<int32_t>(best);
  }
}

void route_grad(const RouteGrad& a) {
  for (int64_t n = 0; n < a.batch * a.tokens; ++n) {
    const NoiseKey key{a.seed, a.tile + n / a.tokens, a.layer};
    const std::vector<float> row =
        noisy(a.logits.data + n * a.count, a.count, a.mode, key, n % a.tokens);
    std::vector<double> s(row.begin(), row.end()), dc(row.size());
    double largest = s[0], sum = 0, mean = 0;
    for (double value : s) largest = std::fmax(largest, value);
    for (double& value : s) sum += value = std::exp(value - largest);
    for (size_t k = 0; k < s.size(); ++k) {
      for (int64_t i = 0; i < a.states; ++i) {
        dc[k] += static_cast<double>(a.pool.data[static_cast<int64_t>(k) * a.states + i]) *
                 a.gprompt.data[n * a.states + i];
      }
      mean += s[k] / sum * dc[k];
    }
    for (size_t k = 0; k < s.size(); ++k) {
      a.glogits.data[n * a.count + static_cast<int64_t>(k)] =
          static_cast<float>(s[k] / sum * (dc[k] - mean));
    }
  }
}

void sort_tokens(const SortTokens& a) {
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    const int32_t* classes = a.classes.data + sample * a.tokens;
    int32_t* order = a.order.data + sample * a.tokens;
    int32_t* const end = order + a.tokens;  // reached early where order overlaps classes
    for (int64_t k = 0; k < a.count; ++k) {
      for (int64_t n = 0; n < a.tokens; ++n) {
        if (clamp_class(classes[n], a.count) == k && order < end) {
          *order++ = static_cast<int32_t>(sample * a.tokens + n);
        }
      }
    }
  }
  for (int64_t i = 0; a.inverse && i < a.batch * a.tokens; ++i) {
    const int64_t row = a.order.data[i];
    if (row >= 0 && row < a.batch * a.tokens) a.inverse.data[row] = static_cast<int32_t>(i);
  }
}

void add_prompt(const AddPrompt& a) {
  for (int64_t n = 0; n < a.rows; ++n) {
    const float* prompt = a.pool.data + clamp_class(a.classes.data[n], a.count) * a.states;
    for (int64_t i = 0; i < a.states; ++i) {
      a.y.data[n * a.states + i] = a.c.data[n * a.states + i] + prompt[i];
    }
  }
}

void add_prompt_grad(const AddPromptGrad& a) {
  std::vector<double> gpool(static_cast<size_t>(a.count * a.states));
  for (int64_t n = 0; n < a.rows; ++n) {
    const int64_t at = clamp_class(a.classes.data[n], a.count) * a.states;
    for (int64_t i = 0; i < a.states; ++i) {
      gpool[static_cast<size_t>(at + i)] += a.gy.data[n * a.states + i];
    }
  }
  for (size_t i = 0; i < gpool.size(); ++i) a.gpool.data[i] = static_cast<float>(gpool[i]);
}

}  // namespace ops
}  // namespace spr2q
