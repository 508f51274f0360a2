// The frozen plan as JavaScript sees it: createPlan(...) -> handle, runPlan(handle, ...) -> Promise.
#pragma once
#include <napi.h>

#include "../core/backend.hpp"

namespace spr2q {

const Backend& current_backend();

// createPlan(code: Float64Array, constants: TypedArray[], arenaBytes, inputFloats, outputFloats).
Napi::Value create_plan(const Napi::CallbackInfo& info);

// runPlan(plan, input: Float32Array, output: Float32Array, cancel: Int32Array | null,
// seconds: Float64Array | null, noiseTile): Promise of true, or false where cancel[0] became
// non-zero first.
Napi::Value run_plan(const Napi::CallbackInfo& info);

}  // namespace spr2q
