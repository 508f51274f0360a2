// Frozen networks on the GPU: createDevicePlan(...) -> handle, runDevicePlan(handle, ...) -> Promise,
// runDevicePlanOn(handle, ...) between tensors that lie there. The CUDA library does the work
// (cuda/plan.cu); a run holds references to what it reads and writes.
#include <memory>
#include <string>
#include <vector>

#include "../core/cuda_library.hpp"
#include "args.hpp"
#include "env.hpp"
#include "wrap_device.hpp"

namespace spr2q {
namespace {

// Held by its handle until that is released, and by the jobs that run it.
struct DevicePlan {
  const CudaServices* services = nullptr;
  void* plan = nullptr;
  int64_t input_floats = 0, output_floats = 0;
  ~DevicePlan() {
    if (!plan) return;
    const char* text = "";
    services->plan_destroy(plan);
    services->last_error(&text);  // nobody is left to hear of it
  }
};

using Handle = std::shared_ptr<const DevicePlan>;

// "ERR_CUDA_...: text" of this thread's failure.
std::string failure_of(const CudaServices& services) {
  const char* text = "";
  const int32_t code = services.last_error(&text);
  return std::string(cuda_error_name(code)) + ": " + text;
}

// The code of lib/errors.ts for a failure of the GPU; lib/device.ts says the same of thrown texts.
const char* code_of(int32_t code) {
  switch (code) {
    case kCudaOutOfMemory: return "ERR_OUT_OF_MEMORY";
    case kCudaDeviceLost:
    case kCudaLaunchFailed: return "ERR_GPU_LOST";
    case kCudaBadArgument:
    case kCudaScratchInCapture: return "ERR_NATIVE";
    default: return "ERR_GPU_UNAVAILABLE";
  }
}

Napi::Value create_device_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 5 || !is_list_of_calls(info[0]) || !info[1].IsArray()) {
    throw coded_error(env, "ERR_ARGUMENT",
                      "createDevicePlan: takes (code, constants, arenaBytes, inputs, outputs)");
  }
  const int64_t arena = whole_number(info[2], "createDevicePlan: arenaBytes", 0, kMostWhole);
  const CudaModule* module = usable_cuda_module();
  if (!module) {
    throw Napi::Error::New(env, "createDevicePlan: ERR_CUDA_NO_LIBRARY: no usable CUDA library was opened");
  }
  const Napi::Float64Array code = info[0].As<Napi::Float64Array>();
  const Napi::Array list = info[1].As<Napi::Array>();
  std::vector<CudaHostBlock> constants;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const HostBytes bytes = host_bytes(env, list.Get(i), "createDevicePlan");
    constants.push_back({bytes.data, bytes.bytes});
  }
  auto plan = std::make_shared<DevicePlan>();
  plan->services = module->services;
  plan->input_floats = whole_number(info[3], "createDevicePlan: inputFloats", 0, kMostWhole);
  plan->output_floats = whole_number(info[4], "createDevicePlan: outputFloats", 0, kMostWhole);
  const CudaPlanDescription description = {
      code.Data(), static_cast<int64_t>(code.ElementLength()), constants.data(),
      static_cast<int64_t>(constants.size()), arena, plan->input_floats,
      plan->output_floats};
  if (plan->services->plan_create(&description, &plan->plan) != kCudaOk) {
    throw Napi::Error::New(env, "createDevicePlan: " + failure_of(*plan->services));
  }
  return Napi::External<Handle>::New(env, new Handle(plan),
                                     [](Napi::Env, Handle* dropped) { delete dropped; });
}

Handle& handle_of(const Napi::CallbackInfo& info, const char* function) {
  if (info.Length() < 1 || !info[0].IsExternal()) {
    throw coded_error(info.Env(), "ERR_ARGUMENT", std::string(function) + ": takes a device plan");
  }
  return *info[0].As<Napi::External<Handle>>().Data();
}

std::shared_ptr<const DevicePlan> plan_of(const Napi::CallbackInfo& info, const char* function) {
  const Handle& plan = handle_of(info, function);
  if (plan) return plan;
  throw coded_error(info.Env(), "ERR_DISPOSED", std::string(function) + ": the plan was released");
}

Napi::Value release_device_plan(const Napi::CallbackInfo& info) {
  handle_of(info, "releaseDevicePlan").reset();
  return info.Env().Undefined();
}

Napi::Value run_device_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<const DevicePlan> plan = plan_of(info, "runDevicePlan");
  if (info.Length() < 5 || !info[1].IsTypedArray() || !info[2].IsTypedArray()) {
    throw coded_error(env, "ERR_ARGUMENT",
                      "runDevicePlan: takes (plan, input, output, cancel, noiseTile)");
  }
  const auto array = [&](size_t i, napi_typedarray_type type, int64_t least, const char* what) {
    return lent(info[i], type, least, "runDevicePlan", what);
  };
  const auto* from = static_cast<float*>(array(1, napi_float32_array, plan->input_floats, "input"));
  auto* to = static_cast<float*>(array(2, napi_float32_array, plan->output_floats, "output"));
  const auto* cancel = static_cast<int32_t*>(array(3, napi_int32_array, 1, "cancel"));
  const int64_t noise_tile = whole_number(info[4], "runDevicePlan: noiseTile", -kMostWhole, kMostWhole);
  Napi::Array kept = Napi::Array::New(env);
  for (uint32_t i = 0; i < 4; ++i) kept.Set(i, info[i]);
  // One launch: once begun, it cannot be stopped.
  auto work = [plan, from, to, noise_tile](RunWatch& watch) -> RunResult {
    if (watch.stopped()) return {false};
    const int32_t code = plan->services->plan_run(plan->plan, from, to, noise_tile);
    if (code == kCudaOk) return {true};
    return {false, code_of(code), "runDevicePlan: " + failure_of(*plan->services)};
  };
  auto job = std::make_unique<Job>(env, work, kept, cancel, env.Null(), 0);
  const Napi::Value promise(env, job->promise());
  Env::of(env).submit(std::move(job));
  return promise;
}

Napi::Value run_device_plan_on(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<const DevicePlan> plan = plan_of(info, "runDevicePlanOn");
  const auto place = [&](size_t i, int64_t floats) {
    const double address = info[i].IsNumber() ? info[i].As<Napi::Number>().DoubleValue() : -1;
    float* data = placed_on_device<float>(address, static_cast<double>(floats));
    if (data) return data;
    throw coded_error(env, "ERR_ARGUMENT",
                      "runDevicePlanOn: input or output is no tensor on the GPU of the plan's size");
  };
  const float* input = place(1, plan->input_floats);
  float* output = place(2, plan->output_floats);
  const int64_t noise_tile = whole_number(info[3], "runDevicePlanOn: noiseTile", -kMostWhole, kMostWhole);
  if (plan->services->plan_run_device(plan->plan, input, output, noise_tile) != kCudaOk) {
    throw Napi::Error::New(env, "runDevicePlanOn: " + failure_of(*plan->services));
  }
  return env.Undefined();
}

}  // namespace

void export_device_plan(Napi::Env env, Napi::Object exports) {
  exports.Set("createDevicePlan", Napi::Function::New(env, create_device_plan, "createDevicePlan"));
  exports.Set("releaseDevicePlan", Napi::Function::New(env, release_device_plan, "releaseDevicePlan"));
  exports.Set("runDevicePlan", Napi::Function::New(env, run_device_plan, "runDevicePlan"));
  exports.Set("runDevicePlanOn", Napi::Function::New(env, run_device_plan_on, "runDevicePlanOn"));
}

}  // namespace spr2q
