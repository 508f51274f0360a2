// Memory of the GPU as JavaScript sees it: addresses as numbers, copies of whole typed arrays.
// binding.d.ts types these functions; core/device_heap.hpp does the work.
#pragma once
#include <napi.h>

namespace spr2q {

// The bytes of a typed array; a TypeError names `function` for anything else.
struct HostBytes {
  uint8_t* data;
  int64_t bytes;
};
HostBytes host_bytes(Napi::Env env, Napi::Value value, const char* function);

// openDevice ... deviceCounters, in the order of binding.d.ts.
void export_device(Napi::Env env, Napi::Object exports);
// createDevicePlan ... runDevicePlanOn.
void export_device_plan(Napi::Env env, Napi::Object exports);

}  // namespace spr2q
