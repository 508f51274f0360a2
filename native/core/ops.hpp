// The op vocabulary: one argument struct per op, in the order of the native boundary.
//
// This header is the manual of the native half. A backend implements each op as a function that
// takes its struct; native/ops has the readable reference, native/cpu the fast version, both in a
// file of the op's family. Reading rules:
//   * Tensors are row-major and token-major: (rows, channels) or (batch, height, width, channels).
//   * `rows` counts tokens of the whole batch. Outputs are written, never added to, unless said.
//   * "optional" operands may be absent (nullptr). Outputs must not alias inputs unless said.
//   * Gradients: gX is dL/dX. Codes are one byte each, 0 ... 2^bits - 1.
//   * Quantiser bounds: granularity kTensor: lower(1), upper(1); kRow: lower(rows), upper(rows);
//     kColumn: lower(columns) and ONE common range, upper(1) = range: x ~ lower[c] + range/L * q.
//     L = 2^bits - 1, inverse = L/(upper-lower) and step = (upper-lower)/L in float32;
//     u = min(max((x-lower)*inverse, 0), L), q = round_half_even(u), value = fma(step, q, lower).
// check() returns a message where an operand is missing or too small: the addon calls it once, so
// that no kernel has to.
#pragma once
#include "ops/products.hpp"
#include "ops/fused.hpp"
#include "ops/rows.hpp"
#include "ops/sequence.hpp"
#include "ops/quantisers.hpp"
#include "ops/training.hpp"

namespace spr2q {

// The list that fills every backend table: X(function name, argument struct).
#define SPR2Q_OPS(X)                                                                       \
  X(linear, Linear) X(pack_linear, PackLinear) X(packed_linear, PackedLinear)              \
  X(linear_grad_input, LinearGradInput) X(linear_grad_weight, LinearGradWeight)            \
  X(coded_linear, CodedLinear) X(pack_coded_linear, PackCodedLinear)                       \
  X(packed_coded_linear, PackedCodedLinear) X(fused_coded_linear, FusedCodedLinear)        \
  X(fused_coded_depthwise_conv, FusedCodedDepthwiseConv)                                   \
  X(gated_depthwise_conv, GatedDepthwiseConv)                                              \
  X(conv2d, Conv2d) X(conv2d_grad_input, Conv2dGradInput)                                  \
  X(conv2d_grad_weight, Conv2dGradWeight) X(depthwise_conv, DepthwiseConv)                 \
  X(depthwise_conv_grad_input, DepthwiseConvGradInput)                                     \
  X(depthwise_conv_grad_weight, DepthwiseConvGradWeight)                                   \
  X(coded_depthwise_conv, CodedDepthwiseConv) X(layer_norm, LayerNorm)                     \
  X(layer_norm_grad, LayerNormGrad) X(gelu, Gelu) X(gelu_grad, GeluGrad)                   \
  X(sigmoid_gate, SigmoidGate) X(sigmoid_gate_grad, SigmoidGateGrad)                       \
  X(multiply, Multiply) X(add, Add) X(negative_exp, NegativeExp) X(scale, Scale)           \
  X(scale_add, ScaleAdd) X(scale_add_grad, ScaleAddGrad) X(slice_columns, SliceColumns)    \
  X(slice_columns_grad, SliceColumnsGrad) X(transpose, Transpose)                          \
  X(gather_rows, GatherRows) X(scatter_rows, ScatterRows) X(pad_image, PadImage)           \
  X(pixel_shuffle, PixelShuffle) X(pixel_shuffle_grad, PixelShuffleGrad)                   \
  X(softmax, Softmax) X(softmax_grad, SoftmaxGrad)                                         \
  X(window_attention, WindowAttention) X(coded_window_attention, CodedWindowAttention)     \
  X(window_attention_grad, WindowAttentionGrad) X(route, Route) X(route_grad, RouteGrad)   \
  X(sort_tokens, SortTokens) X(add_prompt, AddPrompt) X(add_prompt_grad, AddPromptGrad)    \
  X(selective_scan, SelectiveScan) X(selective_scan_grad, SelectiveScanGrad)               \
  X(quantize, Quantize) X(dequantize, Dequantize) X(qdq, Qdq) X(qdq_grad, QdqGrad)         \
  X(quantize_weights, QuantizeWeights) X(quantize_weights_grad, QuantizeWeightsGrad)       \
  X(dobi, Dobi) X(separate_bounds, SeparateBounds)                                         \
  X(merge_rectifiers, MergeRectifiers)                                                     \
  X(merge_rectifiers_grad, MergeRectifiersGrad) X(l1_loss, L1Loss)                         \
  X(feature_loss, FeatureLoss) X(adam, Adam)

}  // namespace spr2q
