// The frozen plan as JavaScript sees it: createPlan(...) -> handle, runPlan(handle, ...)
// -> Promise.
#pragma once
#include <napi.h>

#include "../core/backend.hpp"

namespace spr2q {

const Backend& current_backend();

// createPlan(code: Float64Array, constants: TypedArray[], arenaBytes, inputFloats, outputFloats).
Napi::Value create_plan(const Napi::CallbackInfo& info);

// releasePlan(plan): frees it, at the end of its last run where some are under way. May be repeated.
Napi::Value release_plan(const Napi::CallbackInfo& info);

// runPlan(plan, input: Float32Array, output: Float32Array, cancel: Int32Array | null,
// seconds: Float64Array | null, noiseTile, onProgress: function | null): Promise of true, or false
// where cancel[0] became non-zero first. Rejects with an Error of code
// ERR_OUT_OF_MEMORY, or ERR_ARGUMENT where a call is refused in some tile.
Napi::Value run_plan(const Napi::CallbackInfo& info);

}  // namespace spr2q
