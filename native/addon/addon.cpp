// Module init: every op of the table under its camel-case name, and a handful of functions about
// the backend itself. binding.d.ts types what is exported here, in the same order.
#include "args.hpp"

#include <atomic>
#include <new>
#include <string>

#include "../core/arena.hpp"
#include "../core/backend.hpp"
#include "../core/constants.hpp"
#include "../core/cuda_library.hpp"
#include "../core/pool.hpp"
#include "../core/system.hpp"
#include "env.hpp"
#include "wrap_device.hpp"
#include "wrap_plan.hpp"

namespace spr2q {
namespace {

// Of the process: every environment uses the same.
std::atomic<const Backend*>& chosen_backend() {
  static std::atomic<const Backend*> backend = [] {
    const char* names[8];
    return find_backend(list_backends(names, 8) > 0 ? names[0] : "reference");
  }();
  return backend;
}

template <class Args, void (*Backend::*op)(const Args&)>
Napi::Value call(const Napi::CallbackInfo& info) {
  const char* name = static_cast<const char*>(info.Data());
  Args args;
  ArgumentReader reader(info, name);
  args.visit(reader);
  if (const char* problem = args.check()) {
    throw coded_error(info.Env(), "ERR_ARGUMENT", std::string(name) + ": " + problem);
  }
  const Backend* backend = reader.on_device() ? &device_heap()->backend() : &current_backend();
  try {
    (backend->*op)(args);
  } catch (const std::bad_alloc&) {  // of a reference; the fast backends allocate nothing that throws
    throw coded_error(info.Env(), "ERR_OUT_OF_MEMORY", std::string(name) + ": no memory for its sums");
  }
  if (reader.on_device() || backend == host_cuda_backend()) {
    const std::string failure =
        reader.on_device() ? device_heap()->failure() : host_cuda_failure();
    if (!failure.empty()) throw coded_error(info.Env(), "ERR_NATIVE", std::string(name) + ": " + failure);
  }
  return info.Env().Undefined();
}

std::string camel_case(const char* name) {
  std::string result;
  for (const char* c = name; *c; ++c) {
    if (*c == '_' && c[1]) result += static_cast<char>(std::toupper(*++c));
    else result += *c;
  }
  return result;
}

constexpr double kMostBytes = 8589934592.0;  // 2^33: what a typed array of Node 20 may span

// allocate(bytes): an ArrayBuffer on a 64-byte boundary, contents undefined.
Napi::Value allocate(const Napi::CallbackInfo& info) {
  const size_t bytes = static_cast<size_t>(whole_number(info[0], "allocate: bytes", 0, kMostBytes));
  void* data = aligned_block((bytes + 127) / 64 * 64);
  if (!data) {
    throw coded_error(info.Env(), "ERR_OUT_OF_MEMORY",
                      "allocate: no memory for " + std::to_string(bytes) + " bytes");
  }
  return Napi::ArrayBuffer::New(info.Env(), data, bytes,
                                [](Napi::Env, void* block) { free_aligned(block); });
}

Napi::Value backends(const Napi::CallbackInfo& info) {
  const char* names[8];
  const int count = list_backends(names, 8);
  Napi::Array list = Napi::Array::New(info.Env());
  for (int i = 0; i < count; ++i) list.Set(static_cast<uint32_t>(i), names[i]);
  return list;
}

Napi::Value backend_name(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), current_backend().name);
}

Napi::Value use_backend(const Napi::CallbackInfo& info) {
  const std::string name = text_of(info[0], "useBackend: name");
  const Backend* backend = find_backend(name.c_str());
  if (!backend) {
    throw coded_error(info.Env(), "ERR_ARGUMENT", "useBackend: this machine has no \"" + name + "\"");
  }
  chosen_backend() = backend;
  return info.Env().Undefined();
}

constexpr double kMostThreads = 1024;

Napi::Value threads(const Napi::CallbackInfo& info) {
  if (info.Length() > 0) {
    set_thread_count(static_cast<int>(whole_number(info[0], "threads: count", 1, kMostThreads)));
  }
  return Napi::Number::New(info.Env(), thread_count());
}

Napi::Value peak_bytes_of_runs(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(peak_bytes(info[0].ToBoolean())));
}

Napi::Value constant_bytes_held(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(constant_bytes()));
}

constexpr double kMostAdjusted = 1099511627776.0;  // 2^40: the collector works harder for each

// adjustMemory(bytes): tells the garbage collector of memory that it cannot see; all that it knows of.
Napi::Value adjust_memory(const Napi::CallbackInfo& info) {
  const int64_t change = whole_number(info[0], "adjustMemory: bytes", -kMostAdjusted, kMostAdjusted);
  const int64_t all = Napi::MemoryManagement::AdjustExternalMemory(info.Env(), change);
  return Napi::Number::New(info.Env(), static_cast<double>(all));
}

// openCuda(path): { code, text, hostMemory, devices: [{ name, architecture, memoryBytes }] }.
Napi::Value open_cuda(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const CudaStatus status = open_cuda_library(text_of(info[0], "openCuda: path").c_str());
  Napi::Object result = Napi::Object::New(env);
  result.Set("code", status.code);
  result.Set("text", status.text);
  result.Set("hostMemory",
             Napi::Boolean::New(env, status.module && host_cuda_backend() == status.module->backend));
  Napi::Array devices = Napi::Array::New(env);
  for (const CudaDevice& device : status.devices) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", device.name);
    one.Set("architecture", device.architecture);
    one.Set("memoryBytes", static_cast<double>(device.memory_bytes));
    devices.Set(devices.Length(), one);
  }
  result.Set("devices", devices);
  return result;
}

Napi::Value op_names(const Napi::CallbackInfo& info) {
  Napi::Array list = Napi::Array::New(info.Env());
#define SPR2Q_NAME(op, Args) list.Set(list.Length(), camel_case(#op));
  SPR2Q_OPS(SPR2Q_NAME)
#undef SPR2Q_NAME
  return list;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  keep_loaded();
  env.SetInstanceData(new Env(env));
  exports.Set("allocate", Napi::Function::New(env, allocate, "allocate"));
  exports.Set("backends", Napi::Function::New(env, backends, "backends"));
  exports.Set("backendName", Napi::Function::New(env, backend_name, "backendName"));
  exports.Set("useBackend", Napi::Function::New(env, use_backend, "useBackend"));
  exports.Set("threads", Napi::Function::New(env, threads, "threads"));
  exports.Set("peakBytes", Napi::Function::New(env, peak_bytes_of_runs, "peakBytes"));
  exports.Set("constantBytes", Napi::Function::New(env, constant_bytes_held, "constantBytes"));
  exports.Set("adjustMemory", Napi::Function::New(env, adjust_memory, "adjustMemory"));
  exports.Set("openCuda", Napi::Function::New(env, open_cuda, "openCuda"));
  export_device(env, exports);
  exports.Set("opNames", Napi::Function::New(env, op_names, "opNames"));
  exports.Set("createPlan", Napi::Function::New(env, create_plan, "createPlan"));
  exports.Set("releasePlan", Napi::Function::New(env, release_plan, "releasePlan"));
  exports.Set("runPlan", Napi::Function::New(env, run_plan, "runPlan"));
  export_device_plan(env, exports);
#define SPR2Q_EXPORT(op, Args)                                                               \
  exports.Set(camel_case(#op), Napi::Function::New(env, call<Args, &Backend::op>, #op,       \
                                                   const_cast<char*>(#op)));
  SPR2Q_OPS(SPR2Q_EXPORT)
#undef SPR2Q_EXPORT
  return exports;
}

}  // namespace

const Backend& current_backend() { return *chosen_backend().load(); }

}  // namespace spr2q

using spr2q::init;
NODE_API_MODULE(spr2q, init)
