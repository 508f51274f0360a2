// See job.hpp.
#include "job.hpp"

#include <exception>
#include <new>
#include <utility>

#include "env.hpp"

namespace spr2q {
namespace {

constexpr std::chrono::milliseconds kBetweenReports{50};

}  // namespace

Job::Job(Napi::Env env, Work work, Napi::Object kept, const int32_t* control,
         Napi::Value on_progress, int64_t memory)
    : env_(env), work_(std::move(work)), control_(control), memory_(memory) {
  if (napi_create_promise(env, &deferred_, &promise_) != napi_ok) {
    throw Napi::Error::New(env, "no promise could be made");
  }
  kept_ = Napi::Persistent(kept);
  if (on_progress.IsFunction()) on_progress_ = Napi::Persistent(on_progress.As<Napi::Function>());
  Napi::MemoryManagement::AdjustExternalMemory(env, memory_);
}

Job::~Job() {
  int64_t all = 0;
  napi_adjust_external_memory(env_, -memory_, &all);
}

bool Job::stopped() const {
  return stopped_ || (control_ && __atomic_load_n(control_, __ATOMIC_RELAXED) != 0);
}

void Job::execute(Env& env) {
  owner_ = &env;
  try {
    result_ = stopped() ? RunResult{false} : work_(*this);
  } catch (const std::bad_alloc&) {
    result_ = {false, "ERR_OUT_OF_MEMORY", "no memory for the work"};
  } catch (const std::exception& error) {
    result_ = {false, "ERR_INTERNAL", error.what()};
  }
}

void Job::step_done(int64_t done) {
  done_ = done;
  if (on_progress_.IsEmpty()) return;
  const Clock::time_point now = Clock::now();
  if (now - told_ < kBetweenReports) return;
  told_ = now;
  owner_->post_progress(this);
}

// An environment that ends in the middle (process.exit() in a worker) refuses calls. They are made
// without exceptions here, since to make one is such a call; what they would have said is not missed.
void Job::report() {
  napi_value self = nullptr, done = nullptr;
  if (napi_get_undefined(env_, &self) != napi_ok) return;
  if (napi_create_int64(env_, done_, &done) != napi_ok) return;
  if (napi_call_function(env_, self, on_progress_.Value(), 1, &done, nullptr) != napi_pending_exception) {
    return;
  }
  napi_value error = nullptr;
  if (napi_get_and_clear_last_exception(env_, &error) == napi_ok) napi_fatal_exception(env_, error);
}

void Job::settle() {
  napi_value value = nullptr, code = nullptr, text = nullptr;
  if (!result_.code) {
    if (napi_get_boolean(env_, result_.finished, &value) == napi_ok) {
      napi_resolve_deferred(env_, deferred_, value);
    }
    return;
  }
  if (napi_create_string_utf8(env_, result_.code, NAPI_AUTO_LENGTH, &code) == napi_ok &&
      napi_create_string_utf8(env_, result_.problem.c_str(), NAPI_AUTO_LENGTH, &text) == napi_ok &&
      napi_create_error(env_, code, text, &value) == napi_ok) {
    napi_reject_deferred(env_, deferred_, value);
  }
}

}  // namespace spr2q
