// Fast merge of a rectifier group and its gradients. The experts stack into one low-rank pair: with
// gated(out, experts*rank) = gates[i] b[i] the merge is weight + gated * a, where a, stored as
// (experts, rank, in), already is the (experts*rank, in) matrix. So the merge and all gradients are
// products of panel.hpp on matrices of at most a few hundred columns, on one thread: a network has
// two hundred of them, of some 0.1 MMAC.
#include "panel.hpp"

namespace spr2q {
namespace SPR2Q_ISA {
namespace {

enum Slot { kGated, kStack, kPanel, kProduct };

// gated(out, experts*rank) = gates[i] b[i](out,rank), experts side by side.
float* gather_gated(const float* b, const float* gates, int64_t experts, int64_t rank,
                    int64_t out) {
  float* gated = scratch<float>(kGated, experts * rank * out + 1);
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t r = 0; r < rank; ++r) {
        gated[(o * experts + e) * rank + r] = gates[e] * b[(e * out + o) * rank + r];
      }
    }
  }
  return gated;
}

}  // namespace

static void merge_group(const RectifierGroup& p) {
  const int64_t stacked = p.experts * p.rank, size = p.out * p.in;
  const float* gated = gather_gated(p.b.data, p.gates.data, p.experts, p.rank, p.out);
  float* panel = scratch<float>(kPanel, stacked * padded(p.in) + 1);
  pack_panel(panel, p.a.data, stacked, p.in, p.in, 1);
  PanelProduct product;
  product.segments[0] = {gated, panel};
  product.segment_count = 1;
  product.depth = stacked;
  product.row_step = stacked;
  product.width = padded(p.in);
  product.bias = nullptr;
  product.y = p.merged.data;
  product.rows = p.out;
  product.columns = p.in;
  panel_product<false>(product);
  for (int64_t i = 0; i < size; ++i) p.merged.data[i] += p.weight.data[i];
}

static void merge_group_grad(const RectifierGroupGrad& p) {
  const int64_t stacked = p.experts * p.rank, width = padded(p.in), wide = padded(stacked);
  // ga = gated^T gmerged.
  const float* gated = gather_gated(p.b.data, p.gates.data, p.experts, p.rank, p.out);
  float* stack = scratch<float>(kStack, stacked * width);
  std::memset(stack, 0, static_cast<size_t>(stacked * width) * sizeof(float));
  outer_product({gated, stacked, p.gmerged.data, p.in, stack, width, p.out, stacked, p.in});
  for (int64_t k = 0; k < stacked; ++k) {
    std::memcpy(p.ga.data + k * p.in, stack + k * width, static_cast<size_t>(p.in) * sizeof(float));
  }
  // product(out, experts*rank) = gmerged a^T; gb is it times the gate, ggates its sum with b.
  float* panel = scratch<float>(kPanel, p.in * wide);
  pack_panel(panel, p.a.data, p.in, stacked, 1, p.in);
  PanelProduct back;
  back.segments[0] = {p.gmerged.data, panel};
  back.segment_count = 1;
  back.depth = p.in;
  back.row_step = p.in;
  back.width = wide;
  back.bias = nullptr;
  back.y = scratch<float>(kProduct, p.out * stacked);
  back.rows = p.out;
  back.columns = stacked;
  panel_product<false>(back);
  for (int64_t e = 0; e < p.experts; ++e) {
    double gate_gradient = 0.0;
    for (int64_t o = 0; o < p.out; ++o) {
      const float* product = back.y + o * stacked + e * p.rank;
      const int64_t at = (e * p.out + o) * p.rank;
      for (int64_t r = 0; r < p.rank; ++r) {
        p.gb.data[at + r] = p.gates.data[e] * product[r];
        gate_gradient += static_cast<double>(p.b.data[at + r]) * product[r];
      }
    }
    p.ggates.data[e] = static_cast<float>(gate_gradient);
  }
}

void merge_rectifiers(const MergeRectifiers& a) {
  for (int64_t i = 0; i < a.weight.size; ++i) merge_group(a.group(i));
}
void merge_rectifiers_grad(const MergeRectifiersGrad& a) {
  for (int64_t i = 0; i < a.gmerged.size; ++i) merge_group_grad(a.group(i));
}

}  // namespace SPR2Q_ISA
}  // namespace spr2q
