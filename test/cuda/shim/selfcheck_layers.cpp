// merge_pack_run, which no op of the table names, against the ops that it joins: every layer
// merged, quantised and packed one by one must leave the same bytes. By the module's own tables.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../../../native/core/cuda_module.hpp"

extern "C" const spr2q::CudaModule* spr2q_cuda_module();
void expect(bool good, const std::string& what);

namespace {

using namespace spr2q;

uint32_t state = 7;
std::vector<float> values(int64_t n, float low, float high) {
  std::vector<float> result(static_cast<size_t>(n));
  for (float& x : result) {
    state = state * 1664525u + 1013904223u;
    x = low + (high - low) * static_cast<float>(state >> 8) / 16777216.0f;
  }
  return result;
}
F32 view(std::vector<float>& x) { return {x.data(), static_cast<int64_t>(x.size())}; }

struct Layer {
  int64_t in, out, experts, rank, bits, x_granularity, weight_granularity;
  std::vector<float> weight, a, b, gates, lower, upper, x_lower, x_upper, bias, merged;
  std::vector<uint8_t> joined, apart, codes;

  Layer(int64_t in_, int64_t out_, int64_t experts_, int64_t rank_, int64_t bits_, bool by_column,
        bool by_row)
      : in(in_), out(out_), experts(experts_), rank(rank_), bits(bits_),
        x_granularity(by_column ? kColumn : kTensor), weight_granularity(by_row ? kRow : kTensor),
        weight(values(out * in, -0.4f, 0.4f)), a(values(experts * rank * in, -1, 1)),
        b(values(experts * out * rank, -0.1f, 0.1f)), gates(values(experts, 0, 1)),
        lower(values(by_row ? out : 1, -0.5f, -0.2f)), upper(values(by_row ? out : 1, 0.2f, 0.5f)),
        x_lower(values(by_column ? in : 1, -1, -0.5f)), x_upper(values(1, 0.5f, 1)),
        bias(values(out, -1, 1)), merged(static_cast<size_t>(out * in)),
        joined(static_cast<size_t>(packed_coded_linear_bytes(in, out)), 0xee), apart(joined),
        codes(static_cast<size_t>(out * in)) {}

  MergePackLayer task() {
    const RectifierGroup merge{view(weight), view(a), view(b), view(gates), {nullptr, 0},
                                experts,      rank,    in,      out};
    return {merge, view(lower), view(upper), view(x_lower), view(x_upper), view(bias),
            {joined.data(), static_cast<int64_t>(joined.size())}, 4, bits, x_granularity,
            weight_granularity};
  }

  void one_by_one(const Backend& ops) {
    const U8 all = {codes.data(), static_cast<int64_t>(codes.size())};
    const F32 lists[] = {view(weight), view(a), view(b), view(gates), view(merged)};
    ops.merge_rectifiers({{lists, 1}, {lists + 1, 1}, {lists + 2, 1}, {lists + 3, 1},
                          {lists + 4, 1}, experts, rank});
    ops.quantize({view(merged), view(lower), view(upper), all, out, in, weight_granularity, bits});
    ops.pack_coded_linear({all, view(x_lower), view(x_upper), view(lower), view(upper), view(bias),
                           {apart.data(), static_cast<int64_t>(apart.size())}, in, out, 4, bits,
                           x_granularity, weight_granularity, 8});
  }
};

}  // namespace

void check_layers() {
  const CudaModule& module = *spr2q_cuda_module();
  std::vector<Layer> layers;
  layers.emplace_back(48, 144, 4, 8, 4, true, true);
  layers.emplace_back(24, 48, 4, 8, 2, false, true);
  layers.emplace_back(3, 5, 1, 1, 1, true, false);
  layers.emplace_back(50, 1, 2, 3, 4, false, false);
  std::vector<MergePackLayer> tasks;
  for (Layer& layer : layers) tasks.push_back(layer.task());
  void* plan = nullptr;
  bool same = module.services->merge_pack_create(tasks.data(), 4, &plan) == kCudaOk;
  same = same && module.services->merge_pack_run(plan) == kCudaOk;
  same = same && module.services->merge_pack_destroy(plan) == kCudaOk;
  bool written = true;
  for (Layer& layer : layers) {
    layer.one_by_one(*module.backend);
    same = same && layer.joined == layer.apart;
    written = written && layer.joined != std::vector<uint8_t>(layer.joined.size(), 0xee);
  }
  const char* text = "";
  expect(module.services->last_error(&text) == kCudaOk, "no failure is left behind");
  expect(written && same, "all layers in one launch leave the bytes of merge, quantize and pack");
}
