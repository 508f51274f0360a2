// Window attention, plain: every logit of one query in a row, softmax, weighted sum. The float op
// works in double throughout and is the oracle of the fast versions; the op on codes follows
// ops.hpp in float32, operation by operation and key by key, so that every backend returns its
// bits: the sums over codes are exact, and exp2_shared is the same everywhere.
// q, k, v, y: (batch*height*width, heads*head_dim), head-major.
#include <cmath>
#include <vector>

#include "../core/exponent.hpp"
#include "../core/grid.hpp"
#include "../core/windows.hpp"

namespace spr2q {
namespace ops {
namespace {

// One window's rows in the tensors, as offsets of their first value, and its regions.
struct Place {
  std::vector<int64_t> at, label;
  Place(const Windows& windows, int64_t window, int64_t stride) {
    for (int64_t p = 0; p < windows.positions(); ++p) {
      at.push_back(windows.token(window, p) * stride);
      label.push_back(windows.shift > 0 ? windows.label(window, p) : 0);
    }
  }
  float mask(size_t p, size_t j) const { return label[p] == label[j] ? 0.0f : kWindowMask; }
};

size_t bias_at(const Windows& windows, size_t p, size_t j, int64_t heads, int64_t head) {
  const int64_t row = windows.bias_row(static_cast<int64_t>(p), static_cast<int64_t>(j));
  return static_cast<size_t>(row * heads + head);
}

// The weights P of one query from its logits, not yet divided by `total`.
double weigh(const WindowAttention& a, std::vector<double>& row) {
  const double levels = static_cast<double>((1 << a.bits) - 1);
  double largest = row[0], sum = 0;
  for (double logit : row) largest = std::fmax(largest, logit);
  for (double& logit : row) sum += logit = std::exp(logit - largest);
  if (a.probability_codes == kFloat) return sum;
  double total = 0;
  for (double& weight : row) {
    if (a.probability_codes == kHalfExponent) {
      const double code = std::nearbyint(levels * std::sqrt(weight));
      total += weight = code * code;
    } else {
      const double lower = a.probability_bounds.data[0], upper = a.probability_bounds.data[1];
      const double u = (weight / sum - lower) * levels / (upper - lower);
      const double code = std::nearbyint(std::fmin(std::fmax(u, 0), levels));
      weight = lower + (upper - lower) / levels * code;
    }
  }
  return a.probability_codes == kHalfExponent ? total : 1.0;
}

void keep_softmax(float* to, const std::vector<double>& logits) {
  double largest = logits[0], sum = 0;
  for (double logit : logits) largest = std::fmax(largest, logit);
  for (double logit : logits) sum += std::exp(logit - largest);
  for (double logit : logits) *to++ = static_cast<float>(std::exp(logit - largest) / sum);
}

}  // namespace

void window_attention(const WindowAttention& a) {
  const Windows windows{a.height, a.width, a.window, a.shift};
  const size_t positions = static_cast<size_t>(windows.positions());
  std::vector<double> row(positions);
  float* probabilities = a.probabilities.data;
  for (int64_t window = 0; window < a.batch * windows.per_sample(); ++window) {
    const Place place(windows, window, a.heads * a.head_dim);
    for (int64_t head = 0; head < a.heads; ++head) {
      const float *q = a.q.data + head * a.head_dim, *k = a.k.data + head * a.head_dim;
      const float* v = a.v.data + head * a.head_dim;
      for (size_t p = 0; p < positions; ++p) {
        for (size_t j = 0; j < positions; ++j) {
          row[j] = a.bias_table.data[bias_at(windows, p, j, a.heads, head)];
          row[j] += static_cast<double>(place.mask(p, j));
          for (int64_t d = 0; d < a.head_dim; ++d) {
            row[j] += static_cast<double>(q[place.at[p] + d]) * k[place.at[j] + d];
          }
        }
        if (probabilities) {
          keep_softmax(probabilities, row);
          probabilities += positions;
        }
        const double total = weigh(a, row);
        for (int64_t d = 0; d < a.head_dim; ++d) {
          double sum = 0;
          for (size_t j = 0; j < positions; ++j) sum += row[j] * v[place.at[j] + d];
          a.y.data[place.at[p] + head * a.head_dim + d] = static_cast<float>(sum / total);
        }
      }
    }
  }
}

namespace {

bool on_grid(const CodedWindowAttention& a) {
  return a.probability_codes == kHalfExponent && a.bits <= kGridBits;
}

// L 2^-x of a half exponent, rounded.
int64_t half_code(const CodedWindowAttention& a, float logit, float largest) {
  const float x = on_grid(a) ? grid_exponent(grid_index(largest, logit))
                             : (logit - largest) * kHalfLog2E;
  return static_cast<int64_t>(std::nearbyint(level_count(a.bits) * exp2_shared(x)));
}

// One query of the op on codes: logits in, y out. `value` points at its head's codes of v, key j
// at value[at[j]].
void coded_query(const CodedWindowAttention& a, const std::vector<float>& logits,
                 const std::vector<int64_t>& at, const uint8_t* value, float* y) {
  const Grid v = grid_between(a.grid.data[4], a.grid.data[5], a.code_bits);
  const size_t keys = logits.size();
  float largest = -3.4e38f;
  for (float logit : logits) largest = logit > largest ? logit : largest;
  if (a.probability_codes == kHalfExponent) {
    std::vector<int64_t> square(keys);
    int64_t total = 0;
    for (size_t j = 0; j < keys; ++j) {
      const int64_t code = half_code(a, logits[j], largest);
      total += square[j] = code * code;
    }
    for (int64_t d = 0; d < a.head_dim; ++d) {
      int64_t sum = 0;
      for (size_t j = 0; j < keys; ++j) sum += square[j] * value[at[j] + d];
      // Both are integers below 2^53, so this quotient is the correctly rounded one.
      const float mean = static_cast<float>(static_cast<double>(sum) / static_cast<double>(total));
      y[d] = value_on(v, mean);
    }
    return;
  }
  std::vector<float> weight(keys);
  float sum = 0, total = 0;
  for (size_t j = 0; j < keys; ++j) {
    sum += weight[j] = exp2_shared((logits[j] - largest) * kLog2E);
  }
  const float share = 1.0f / sum;
  if (a.probability_codes == kUniform) {
    const float* bounds = a.probability_bounds.data;
    const Grid grid = grid_between(bounds[0], bounds[1], a.bits);
    for (float& w : weight) total += w = value_on(grid, code_on(grid, w * share));
  }
  for (int64_t d = 0; d < a.head_dim; ++d) {
    float mean = 0;
    for (size_t j = 0; j < keys; ++j) {
      mean = std::fma(weight[j], static_cast<float>(value[at[j] + d]), mean);
    }
    y[d] = a.probability_codes == kUniform ? std::fma(v.step, mean, v.lower * total)
                                           : value_on(v, mean * share);
  }
}

}  // namespace

void quantize(const Quantize&);

void coded_window_attention(const CodedWindowAttention& a) {
  const int64_t columns = a.heads * a.head_dim, rows = a.batch * a.height * a.width;
  if (a.y_codes) {  // in two steps
    std::vector<float> values(static_cast<size_t>(rows * columns));
    CodedWindowAttention plain = a;
    plain.y = {values.data(), rows * columns};
    plain.y_codes = {nullptr, 0};
    coded_window_attention(plain);
    quantize({plain.y, a.y_lower, a.y_upper, a.y_codes, rows, columns, a.y_granularity, a.y_bits});
    return;
  }
  const Windows windows{a.height, a.width, a.window, a.shift};
  const Grid q = grid_between(a.grid.data[0], a.grid.data[1], a.code_bits);
  const Grid k = grid_between(a.grid.data[2], a.grid.data[3], a.code_bits);
  const float factor = on_grid(a) ? kGridFactor : 1.0f;
  const float scale = q.step * k.step * factor, key_scale = q.lower * k.step * factor;
  std::vector<float> logits(static_cast<size_t>(windows.positions()));
  for (int64_t window = 0; window < a.batch * windows.per_sample(); ++window) {
    const Place place(windows, window, a.heads * a.head_dim);
    for (int64_t head = 0; head < a.heads; ++head) {
      const int64_t column = head * a.head_dim;
      for (size_t p = 0; p < logits.size(); ++p) {
        const uint8_t* query = a.q.data + place.at[p] + column;
        for (size_t j = 0; j < logits.size(); ++j) {
          const uint8_t* key = a.k.data + place.at[j] + column;
          int64_t product = 0, sum = 0;
          for (int64_t d = 0; d < a.head_dim; ++d) {
            product += query[d] * key[d];
            sum += key[d];
          }
          const float bias = a.bias_table.data[bias_at(windows, p, j, a.heads, head)] * factor;
          const float rest =
              std::fma(key_scale, static_cast<float>(sum), bias + place.mask(p, j) * factor);
          logits[j] = std::fma(scale, static_cast<float>(product), rest);
        }
        coded_query(a, logits, place.at, a.v.data + column, a.y.data + place.at[p] + column);
      }
    }
  }
}

}  // namespace ops
}  // namespace spr2q
