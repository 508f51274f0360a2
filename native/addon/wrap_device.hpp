// Memory of the GPU as JavaScript sees it: addresses as numbers, copies of whole typed arrays.
// binding.d.ts types these functions; core/device_heap.hpp does the work.
#pragma once
#include <napi.h>

namespace spr2q {

// openDevice ... deviceCounters, in the order of binding.d.ts.
void export_device(Napi::Env env, Napi::Object exports);
// createDevicePlan, runDevicePlan, runDevicePlanOn.
void export_device_plan(Napi::Env env, Napi::Object exports);

}  // namespace spr2q
