// See job.hpp.
#include "job.hpp"

#include <new>
#include <utility>

#include "env.hpp"

namespace spr2q {
namespace {

constexpr std::chrono::milliseconds kBetweenReports{50};

}  // namespace

Job::Job(Napi::Env env, Work work, Napi::Object kept, const int32_t* control,
         Napi::Value on_progress, int64_t memory)
    : env_(env), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)),
      control_(control), memory_(memory) {
  kept_ = Napi::Persistent(kept);
  if (on_progress.IsFunction()) on_progress_ = Napi::Persistent(on_progress.As<Napi::Function>());
  Napi::MemoryManagement::AdjustExternalMemory(env, memory_);
}

Job::~Job() { Napi::MemoryManagement::AdjustExternalMemory(env_, -memory_); }

bool Job::stopped() const {
  return stopped_ || (control_ && __atomic_load_n(control_, __ATOMIC_RELAXED) != 0);
}

void Job::execute(Env& env) {
  owner_ = &env;
  try {
    result_ = stopped() ? RunResult{false, ""} : work_(*this);
  } catch (const std::bad_alloc&) {
    result_ = {false, "no memory for the work"};
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

void Job::report() {
  on_progress_.Call({Napi::Number::New(env_, static_cast<double>(done_))});
}

void Job::settle() {
  if (result_.problem.empty()) {
    deferred_.Resolve(Napi::Boolean::New(env_, result_.finished));
    return;
  }
  Napi::Error error = Napi::Error::New(env_, result_.problem);
  error.Set("code", result_.refused ? "ERR_ARGUMENT" : "ERR_OUT_OF_MEMORY");
  deferred_.Reject(error.Value());
}

}  // namespace spr2q
