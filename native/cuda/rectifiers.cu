// Groups of rectifiers merged into their weights (Eq. 9) and the gradients of the sums, all groups of
// a list in one launch: products so small that a thread makes one entry. merge_pack_run goes on
// from there: a block for every output row of every layer merges it, quantises it by Eq. 1 and writes
// codes and epilogue constants in the layout of coded_linear.cu, the weight never leaving the kernel.
#include <vector>

#include "../core/grid.hpp"
#include "coded_pack.cuh"
#include "sums.cuh"
#include "table.cuh"

namespace spr2q {
namespace cuda {
namespace {

// What a group's merge needs. No array has more than 2^30 values (kMostListed).
struct Merged {
  const float *weight, *a, *b, *gates;
  float* merged;
  int in, out;
};
SPR2Q_SHARED Merged merged_of(const RectifierGroup& g) {
  return {g.weight.data, g.a.data, g.b.data, g.gates.data, g.merged.data, static_cast<int>(g.in),
          static_cast<int>(g.out)};
}

// Experts and their rank, the same in all groups of a call.
struct Stack {
  int experts, rank;
};
template <class Args>
SPR2Q_SHARED Stack stack_of(const Args& p) {
  return {static_cast<int>(p.experts), static_cast<int>(p.rank)};
}

// Entry (o, i) of the merged weight; one order of operations for both ways to it.
SPR2Q_DEVICE float merged_entry(const Merged& p, const Stack& stack, int o, int i) {
  float sum = p.weight[o * p.in + i];
  for (int e = 0; e < stack.experts; ++e) {
    const float* a = p.a + e * stack.rank * p.in + i;
    const float* b = p.b + (e * p.out + o) * stack.rank;
    float product = 0.0f;
    for (int r = 0; r < stack.rank; ++r) product = fmaf(b[r], a[r * p.in], product);
    sum = fmaf(p.gates[e], product, sum);
  }
  return sum;
}

__global__ void __launch_bounds__(kElementBlock)
merge_kernel(SPR2Q_TABLE(Merged) table, Stack stack) {
  const int entry = entry_of_block(table);
  const Merged& p = table.entries[entry];
  const int at = static_cast<int>(place_in(table, entry));
  if (at < p.out * p.in) p.merged[at] = merged_entry(p, stack, at / p.in, at % p.in);
}

// What a group's gradients need; `shares`: (out * rank, experts) terms of ggates.
struct Graded {
  const float *gmerged, *a, *b, *gates;
  float *ga, *gb, *ggates, *shares;
  unsigned* arrived;
  int in, out, blocks;
};

SPR2Q_DEVICE void grad_a(const Graded& p, int rank, int at) {
  const int i = at % p.in, r = at / p.in % rank, e = at / p.in / rank;
  Sum sum = {0.0f, 0.0f};
  for (int o = 0; o < p.out; ++o) {
    add_to(sum, p.b[(e * p.out + o) * rank + r] * p.gmerged[o * p.in + i]);
  }
  p.ga[at] = p.gates[e] * value_of(sum);
}

// An entry of gb leaves its share of ggates too.
SPR2Q_DEVICE void grad_b(const Graded& p, const Stack& stack, int at) {
  const int pairs = p.out * stack.rank, pair = at % pairs, e = at / pairs;
  const int r = pair % stack.rank, o = pair / stack.rank;
  Sum sum = {0.0f, 0.0f};
  for (int i = 0; i < p.in; ++i) {
    add_to(sum, p.gmerged[o * p.in + i] * p.a[(e * stack.rank + r) * p.in + i]);
  }
  p.gb[at] = p.gates[e] * value_of(sum);
  p.shares[pair * stack.experts + e] = p.b[at] * value_of(sum);
}

// A thread for every entry of ga, (e, r, i), and of gb, (e, o, r); the last block of a group adds its
// shares.
__global__ void __launch_bounds__(kElementBlock)
merge_grad_kernel(SPR2Q_TABLE(Graded) table, Stack stack) {
  const int entry = entry_of_block(table);
  const Graded& p = table.entries[entry];
  const int stacked = stack.experts * stack.rank, n = stacked * p.in;
  const int64_t at = place_in(table, entry);
  if (at < n) grad_a(p, stack.rank, static_cast<int>(at));
  else if (at - n < stacked * p.out) grad_b(p, stack, static_cast<int>(at - n));
  if (!arrives_last(p.arrived, static_cast<unsigned>(p.blocks))) return;
  for (int e = 0; e < stack.experts; ++e) {
    const float sum = sum_by_block<kElementBlock, kElementBlock>(
        p.out * stack.rank, [&](int64_t pair) { return p.shares[pair * stack.experts + e]; });
    if (threadIdx.x == 0) p.ggates[e] = sum;
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
  const Merged merge = merged_of(layer.merge);
  const Stack stack = stack_of(layer.merge);
  pack_row(target, o, [&](int64_t i) {
    const float entry = merged_entry(merge, stack, static_cast<int>(o), static_cast<int>(i));
    return static_cast<uint8_t>(code_on(grid, entry));
  });
}

}  // namespace

void merge_rectifiers(const MergeRectifiers& p) {
  const Stack stack = stack_of(p);
  const auto go = [&](const Table<Merged>& table) {
    launch(merge_kernel, dim3(grid_size(table.blocks)), dim3(kElementBlock), 0, table, stack);
  };
  TableFiller<Merged, decltype(go)> tables(go);
  for (int64_t i = 0; i < p.weight.size; ++i) {
    const RectifierGroup g = p.group(i);
    tables.add(merged_of(g), divide_up(g.out * g.in, kElementBlock));
  }
  tables.flush();
}

void merge_rectifiers_grad(const MergeRectifiersGrad& p) {
  Scratch scratch;
  const Stack stack = stack_of(p);
  const int64_t count = p.gmerged.size, stacked = p.experts * p.rank;
  int64_t shared = 0;
  for (int64_t i = 0; i < count; ++i) shared += p.b[i].size;
  float* shares = scratch.take<float>(shared);
  unsigned* arrived = arrivals(count);
  if (failed()) return;
  const auto go = [&](const Table<Graded>& table) {
    launch(merge_grad_kernel, dim3(grid_size(table.blocks)), dim3(kElementBlock), 0, table, stack);
  };
  TableFiller<Graded, decltype(go)> tables(go);
  for (int64_t i = 0; i < count; ++i) {
    const RectifierGroupGrad g = p.group(i);
    const int64_t blocks = divide_up(stacked * (g.in + g.out), kElementBlock);
    tables.add({g.gmerged.data, g.a.data, g.b.data, g.gates.data, g.ga.data, g.gb.data,
                g.ggates.data, shares, arrived + i, static_cast<int>(g.in),
                static_cast<int>(g.out), static_cast<int>(blocks)},
               blocks);
    shares += g.b.size;
  }
  tables.flush();
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
