// Gradients of window attention, plain and in double. Per query: p = softmax of its logits, P what
// the quantiser made of p, dP_j = gy . v_j; then gv_j = sum over queries of P_j gy, and
// dl_j = p_j (g_j - sum p g) with g_j = dP_j inside the quantiser's bounds (kUniform, 0 outside)
// or everywhere (kFloat; kHalfExponent, whose surrogate is the plain softmax). From dl: gq, gk and
// the bias table, one entry of which collects every pair at the same offset.
#include <cmath>
#include <vector>

#include "../core/ops.hpp"
#include "../core/windows.hpp"

namespace spr2q {
namespace ops {
namespace {

struct Query {
  std::vector<double> p, weight, slope;  // softmax, P, and dL/dp; slope starts as dL/dP
  explicit Query(int64_t keys) {
    p.resize(static_cast<size_t>(keys));
    weight = slope = p;
  }
};

// Fills p and weight from logits in p.
void weigh(const WindowAttentionGrad& a, Query& query) {
  const double levels = static_cast<double>((1 << a.bits) - 1);
  double largest = query.p[0], sum = 0, total = 0;
  for (double logit : query.p) largest = std::fmax(largest, logit);
  for (double& p : query.p) sum += p = std::exp(p - largest);
  for (size_t j = 0; j < query.p.size(); ++j) {
    const double code = std::nearbyint(levels * std::sqrt(query.p[j]));
    total += query.weight[j] = code * code;
  }
  for (size_t j = 0; j < query.p.size(); ++j) {
    query.p[j] /= sum;
    if (a.probability_codes == kHalfExponent) {
      query.weight[j] /= total;
    } else {
      query.weight[j] = query.p[j];
    }
  }
}

// Eq. 1 and its straight-through gradient: weight = value of p, slope = dL/dp, bounds' share added.
void quantise(const WindowAttentionGrad& a, Query& query, double gbounds[2]) {
  const double levels = static_cast<double>((1 << a.bits) - 1);
  const double lower = a.probability_bounds.data[0], upper = a.probability_bounds.data[1];
  for (size_t j = 0; j < query.p.size(); ++j) {
    const double p = query.p[j], g = query.slope[j];
    const double u = std::fmin(std::fmax((p - lower) * levels / (upper - lower), 0), levels);
    const double code = std::nearbyint(u), error = (code - u) / levels;
    query.weight[j] = lower + (upper - lower) / levels * code;
    gbounds[0] += (p <= lower ? g : 0) - error * g;
    gbounds[1] += (p >= upper ? g : 0) + error * g;
    if (p < lower || p > upper) query.slope[j] = 0;
  }
}

}  // namespace

void window_attention_grad(const WindowAttentionGrad& a) {
  const Windows windows{a.height, a.width, a.window, a.shift};
  const int64_t positions = windows.positions(), stride = a.heads * a.head_dim;
  const size_t size = static_cast<size_t>(a.batch * a.height * a.width * stride);
  const size_t table_size = static_cast<size_t>((2 * a.window - 1) * (2 * a.window - 1) * a.heads);
  std::vector<double> gk(size), gv(size), gtable(table_size);
  double gbounds[2] = {0, 0};
  Query row(positions);
  std::vector<int64_t> at(static_cast<size_t>(positions)), label(static_cast<size_t>(positions));
  for (int64_t window = 0; window < a.batch * windows.per_sample(); ++window) {
    for (int64_t p = 0; p < positions; ++p) {
      at[static_cast<size_t>(p)] = windows.token(window, p) * stride;
      label[static_cast<size_t>(p)] = a.shift > 0 ? windows.label(window, p) : 0;
    }
    for (int64_t head = 0; head < a.heads; ++head) {
      for (int64_t p = 0; p < positions; ++p) {
        const int64_t query = at[static_cast<size_t>(p)] + head * a.head_dim;
        for (int64_t j = 0; j < positions; ++j) {
          const int64_t key = at[static_cast<size_t>(j)] + head * a.head_dim;
          double logit = a.bias_table.data[windows.bias_row(p, j) * a.heads + head], g = 0;
          if (label[static_cast<size_t>(p)] != label[static_cast<size_t>(j)]) logit += kWindowMask;
          for (int64_t d = 0; d < a.head_dim; ++d) {
            logit += static_cast<double>(a.q.data[query + d]) * a.k.data[key + d];
            g += static_cast<double>(a.gy.data[query + d]) * a.v.data[key + d];
          }
          row.p[static_cast<size_t>(j)] = logit;
          row.slope[static_cast<size_t>(j)] = g;
        }
        weigh(a, row);
        if (a.probability_codes == kUniform) quantise(a, row, gbounds);
        double mean = 0;
        for (size_t j = 0; j < row.p.size(); ++j) mean += row.p[j] * row.slope[j];
        std::vector<double> gq(static_cast<size_t>(a.head_dim));
        for (int64_t j = 0; j < positions; ++j) {
          const size_t i = static_cast<size_t>(j);
          const int64_t key = at[static_cast<size_t>(j)] + head * a.head_dim;
          const double dl = row.p[i] * (row.slope[i] - mean);
          gtable[static_cast<size_t>(windows.bias_row(p, j) * a.heads + head)] += dl;
          for (int64_t d = 0; d < a.head_dim; ++d) {
            gq[static_cast<size_t>(d)] += dl * a.k.data[key + d];
            gk[static_cast<size_t>(key + d)] += dl * a.q.data[query + d];
            gv[static_cast<size_t>(key + d)] += row.weight[i] * a.gy.data[query + d];
          }
        }
        for (int64_t d = 0; d < a.head_dim; ++d) {
          a.gq.data[query + d] = static_cast<float>(gq[static_cast<size_t>(d)]);
        }
      }
    }
  }
  for (size_t i = 0; i < size; ++i) {
    a.gk.data[i] = static_cast<float>(gk[i]);
    a.gv.data[i] = static_cast<float>(gv[i]);
  }
  for (size_t i = 0; i < table_size; ++i) a.gbias_table.data[i] = static_cast<float>(gtable[i]);
  if (a.probability_codes == kUniform) {
    a.gprobability_bounds.data[0] = static_cast<float>(gbounds[0]);
    a.gprobability_bounds.data[1] = static_cast<float>(gbounds[1]);
  }
}

}  // namespace ops
}  // namespace spr2q
