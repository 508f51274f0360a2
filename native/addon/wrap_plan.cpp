// See wrap_plan.hpp. A run holds the plan and references to all arrays that it reads and writes, so
// releasing the handle or dropping the arrays during a run is safe.
#include "wrap_plan.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/cuda_library.hpp"
#include "args.hpp"
#include "../engine/plan.hpp"
#include "env.hpp"

namespace spr2q {
namespace {

// What JavaScript holds; the plan itself lives on while jobs run it.
struct Handle {
  std::shared_ptr<const Plan> plan;
  int64_t reported = 0;  // bytes told to the garbage collector
};

void release(Napi::Env env, Handle& handle) {
  handle.plan = nullptr;
  int64_t all = 0;
  napi_adjust_external_memory(env, -handle.reported, &all);  // also while the environment ends
  handle.reported = 0;
}

Block block_of(const Napi::Env& env, const Napi::Value& value) {
  void* data = nullptr;
  napi_typedarray_type type;
  size_t length = 0;
  // By hand: an array over memory that threads share has no ArrayBuffer to ask.
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      (type != napi_float32_array && type != napi_uint8_array && type != napi_int32_array)) {
    throw coded_error(env, "ERR_ARGUMENT",
                      "createPlan: constants must be a Float32Array, Uint8Array or Int32Array each");
  }
  const int64_t width = type == napi_uint8_array ? 1 : 4;
  return {static_cast<uint8_t*>(data), static_cast<int64_t>(length) * width};
}

}  // namespace

Napi::Value create_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 5 || !is_list_of_calls(info[0]) || !info[1].IsArray()) {
    throw coded_error(env, "ERR_ARGUMENT",
                      "createPlan: takes (code, constants, arenaBytes, inputs, outputs)");
  }
  // Its ops report failures to the thread that called them, and a plan calls from many.
  if (&current_backend() == host_cuda_backend()) {
    throw coded_error(env, "ERR_NATIVE",
                      "createPlan: plans run on the CPU's backends, not on the CUDA shim");
  }
  const Napi::Float64Array code = info[0].As<Napi::Float64Array>();
  const Napi::Array list = info[1].As<Napi::Array>();
  std::vector<Block> constants;
  for (uint32_t i = 0; i < list.Length(); ++i) constants.push_back(block_of(env, list.Get(i)));
  const int64_t arena = whole_number(info[2], "createPlan: arenaBytes", 0, kMostWhole);
  const int64_t inputs = whole_number(info[3], "createPlan: inputFloats", 0, kMostWhole);
  const int64_t outputs = whole_number(info[4], "createPlan: outputFloats", 0, kMostWhole);
  auto plan = std::make_shared<Plan>();
  const std::string problem = plan->build(
      current_backend(), code.Data(), static_cast<int64_t>(code.ElementLength()), constants,
      arena, inputs, outputs);
  if (!problem.empty()) throw coded_error(env, "ERR_ARGUMENT", "createPlan: " + problem);
  auto* handle = new Handle{plan, plan->held_bytes()};
  Napi::MemoryManagement::AdjustExternalMemory(env, handle->reported);
  return Napi::External<Handle>::New(env, handle, [](Napi::Env owner, Handle* dropped) {
    release(owner, *dropped);
    delete dropped;
  });
}

Napi::Value release_plan(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsExternal()) {
    throw coded_error(info.Env(), "ERR_ARGUMENT", "releasePlan: takes (plan)");
  }
  release(info.Env(), *info[0].As<Napi::External<Handle>>().Data());
  return info.Env().Undefined();
}

Napi::Value run_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 7 || !info[0].IsExternal() || !info[1].IsTypedArray() || !info[2].IsTypedArray()) {
    throw coded_error(env, "ERR_ARGUMENT",
                      "runPlan: takes (plan, input, output, cancel, seconds, noiseTile, onProgress)");
  }
  const std::shared_ptr<const Plan> plan = info[0].As<Napi::External<Handle>>().Data()->plan;
  if (!plan) throw coded_error(env, "ERR_DISPOSED", "runPlan: the plan was released");
  const auto* from = static_cast<float*>(lent(info[1], napi_float32_array, plan->input_floats(), "runPlan", "input"));
  auto* to = static_cast<float*>(lent(info[2], napi_float32_array, plan->output_floats(), "runPlan", "output"));
  const auto* cancel = static_cast<int32_t*>(lent(info[3], napi_int32_array, 1, "runPlan", "cancel"));
  auto* seconds = static_cast<double*>(lent(info[4], napi_float64_array, plan->steps(), "runPlan", "seconds"));
  const int64_t noise_tile = whole_number(info[5], "runPlan: noiseTile", -kMostWhole, kMostWhole);
  Napi::Array kept = Napi::Array::New(env);
  for (uint32_t i = 0; i < 5; ++i) kept.Set(i, info[i]);
  auto work = [plan, from, to, seconds, noise_tile](RunWatch& watch) {
    return plan->run(from, to, &watch, seconds, noise_tile);
  };
  auto job = std::make_unique<Job>(env, work, kept, cancel, info[6], plan->arena_bytes());
  const Napi::Value promise(env, job->promise());
  Env::of(env).submit(std::move(job));
  return promise;
}

}  // namespace spr2q
