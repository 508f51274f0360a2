// A group of rectifiers merged into a weight (Eq. 9) and the gradients of the sum: products so
// small that a thread makes one entry. merge_pack_run does the whole network in one launch:
// a block for every output row of every layer merges it, quantises it by Eq. 1 and writes codes
// and epilogue constants in the layout of coded_linear.cu, the weight never leaving the kernel.
#include <vector>

#include "../core/grid.hpp"
#include "coded_pack.cuh"
#include "sums.cuh"

namespace spr2q {
namespace cuda {
namespace {

// Entry (o, i) of the merged weight; one order of operations for both ways to it.
SPR2Q_DEVICE float merged_entry(const MergeRectifiers& p, int64_t o, int64_t i) {
  float sum = p.weight.data[o * p.in + i];
  for (int64_t e = 0; e < p.experts; ++e) {
    const float* a = p.a.data + e * p.rank * p.in + i;
    const float* b = p.b.data + (e * p.out + o) * p.rank;
    float product = 0.0f;
    for (int64_t r = 0; r < p.rank; ++r) product = fmaf(b[r], a[r * p.in], product);
    sum = fmaf(p.gates.data[e], product, sum);
  }
  return sum;
}

__global__ void __launch_bounds__(kElementBlock) merge_kernel(MergeRectifiers p) {
  for (int64_t at = first_element(); at < p.out * p.in; at += element_stride()) {
    p.merged.data[at] = merged_entry(p, at / p.in, at % p.in);
  }
}

SPR2Q_DEVICE void grad_a(const MergeRectifiersGrad& p, int64_t at) {
  const int64_t i = at % p.in, r = at / p.in % p.rank, e = at / p.in / p.rank;
  Sum sum = {0.0f, 0.0f};
  for (int64_t o = 0; o < p.out; ++o) {
    add_to(sum, p.b.data[(e * p.out + o) * p.rank + r] * p.gmerged.data[o * p.in + i]);
  }
  p.ga.data[at] = p.gates.data[e] * value_of(sum);
}

// An entry of gb leaves its share of ggates too.
SPR2Q_DEVICE void grad_b(const MergeRectifiersGrad& p, int64_t at, float* shares) {
  const int64_t r = at % p.rank, o = at / p.rank % p.out, e = at / p.rank / p.out;
  Sum sum = {0.0f, 0.0f};
  for (int64_t i = 0; i < p.in; ++i) {
    add_to(sum, p.gmerged.data[o * p.in + i] * p.a.data[(e * p.rank + r) * p.in + i]);
  }
  p.gb.data[at] = p.gates.data[e] * value_of(sum);
  shares[(at % (p.out * p.rank)) * p.experts + e] = p.b.data[at] * value_of(sum);
}

// A thread for every entry of ga, (e, r, i), and of gb, (e, o, r); the last block adds the shares.
__global__ void __launch_bounds__(kElementBlock)
merge_grad_kernel(MergeRectifiersGrad p, float* shares, unsigned* arrived) {
  const int64_t n = p.experts * p.rank * p.in, pairs = p.out * p.rank;
  for (int64_t at = first_element(); at < n + p.experts * pairs; at += element_stride()) {
    if (at < n) grad_a(p, at);
    else grad_b(p, at - n, shares);
  }
  if (!arrives_last(arrived, gridDim.x)) return;
  for (int64_t e = 0; e < p.experts; ++e) {
    const float sum = sum_by_block<kElementBlock, kElementBlock>(
        pairs, [&](int64_t pair) { return shares[pair * p.experts + e]; });
    if (threadIdx.x == 0) p.ggates.data[e] = sum;
  }
}

// Rows of all layers before layer l: prefix[l]; prefix[count] is their number. The list and the
// prefixes lie on the device, this struct on the host: it is the plan that callers hold.
struct MergePackList {
  MergePackLayer* layers;
  int64_t* prefix;
  int64_t count, rows;
};

__global__ void __launch_bounds__(kPackThreads) merge_pack_kernel(MergePackList list) {
  int64_t low = 0, high = list.count;  // the layer whose rows hold blockIdx.x
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (list.prefix[middle] <= static_cast<int64_t>(blockIdx.x)) low = middle;
    else high = middle;
  }
  const MergePackLayer& layer = list.layers[low];
  const int64_t o = blockIdx.x - list.prefix[low];
  const int64_t at = layer.weight_granularity == kRow ? o : 0;
  const Grid grid = grid_between(layer.weight_lower.data[at], layer.weight_upper.data[at],
                                 layer.weight_bits);
  const PackTarget target{layer.packed.data,       layer.x_lower.data, layer.x_upper.data,
                          layer.weight_lower.data, layer.weight_upper.data, layer.bias.data,
                          layer.merge.in,          layer.merge.out,    layer.x_bits,
                          layer.weight_bits,       layer.x_granularity, layer.weight_granularity};
  pack_row(target, o, [&](int64_t i) {
    return static_cast<uint8_t>(code_on(grid, merged_entry(layer.merge, o, i)));
  });
}

}  // namespace

void merge_rectifiers(const MergeRectifiers& p) {
  launch(merge_kernel, dim3(element_grid(p.out * p.in)), dim3(kElementBlock), 0, p);
}

void merge_rectifiers_grad(const MergeRectifiersGrad& p) {
  Scratch scratch;
  const int64_t pairs = p.out * p.rank;
  float* shares = scratch.take<float>(pairs * p.experts);
  launch(merge_grad_kernel, dim3(element_grid(p.experts * (p.rank * p.in + pairs))),
         dim3(kElementBlock), 0, p, shares, arrivals(1));
}

int32_t merge_pack_destroy(void* plan) {
  MergePackList* list = static_cast<MergePackList*>(plan);
  if (!list) return kCudaOk;
  const int32_t first = services().release(list->layers), second = services().release(list->prefix);
  delete list;
  return first != kCudaOk ? first : second;
}

int32_t merge_pack_create(const MergePackLayer* layers, int64_t count, void** plan) {
  *plan = nullptr;
  const CudaServices& device = services();
  auto* list = new MergePackList{nullptr, nullptr, count, 0};
  std::vector<int64_t> prefix;
  for (int64_t l = 0; l < count; ++l) {
    prefix.push_back(list->rows);
    list->rows += layers[l].merge.out;
  }
  prefix.push_back(list->rows);
  const int64_t list_bytes = count * static_cast<int64_t>(sizeof *layers);
  const int64_t prefix_bytes = (count + 1) * static_cast<int64_t>(sizeof(int64_t));
  int32_t code = device.allocate(reinterpret_cast<void**>(&list->layers), list_bytes);
  if (code == kCudaOk) {
    code = device.allocate(reinterpret_cast<void**>(&list->prefix), prefix_bytes);
  }
  if (code == kCudaOk) code = device.copy_in(list->layers, layers, list_bytes);
  if (code == kCudaOk) code = device.copy_in(list->prefix, prefix.data(), prefix_bytes);
  if (code != kCudaOk) {
    merge_pack_destroy(list);
    return code;
  }
  *plan = list;
  return kCudaOk;
}

int32_t merge_pack_run(void* plan) {
  const MergePackList& list = *static_cast<const MergePackList*>(plan);
  launch(merge_pack_kernel, dim3(grid_size(list.rows)), dim3(kPackThreads), 0, list);
  return failed() ? kCudaLaunchFailed : kCudaOk;
}

}  // namespace cuda
}  // namespace spr2q
