// libFuzzer as a Node addon: counters(n) gives an array whose bytes instrumented JavaScript counts in,
// run(arguments, target) fuzzes target(bytes) and ends the process. An exception is a finding: its
// stack is printed and the input saved, as libFuzzer does for any crash.
#include <napi.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

extern "C" {
int LLVMFuzzerRunDriver(int* argc, char*** argv, int (*test)(const uint8_t*, size_t));
void __sanitizer_cov_8bit_counters_init(uint8_t* first, uint8_t* last);
void __sanitizer_cov_pcs_init(const uintptr_t* first, const uintptr_t* last);
}

namespace {

const Napi::Function* target = nullptr;

int test_one(const uint8_t* data, size_t size) {
  const Napi::Env env = target->Env();
  Napi::HandleScope scope(env);
  try {
    target->Call({Napi::Buffer<uint8_t>::Copy(env, data, size)});
  } catch (const Napi::Error& error) {
    const Napi::Value value = error.Value();
    const Napi::Value stack = value.IsObject() ? value.As<Napi::Object>().Get("stack") : value;
    std::fprintf(stderr, "FINDING: %s\n", std::string(stack.ToString()).c_str());
    std::abort();
  }
  return 0;
}

Napi::Value counters(const Napi::CallbackInfo& info) {
  const size_t n = info[0].As<Napi::Number>().Uint32Value();
  auto* bytes = static_cast<uint8_t*>(std::calloc(n, 1));
  // Of each counter an address and flags (1: entry of a function); any distinct addresses will do.
  auto* places = new uintptr_t[2 * n];
  for (size_t i = 0; i < n; ++i) {
    places[2 * i] = reinterpret_cast<uintptr_t>(bytes) + i + 1;
    places[2 * i + 1] = 0;
  }
  __sanitizer_cov_8bit_counters_init(bytes, bytes + n);
  __sanitizer_cov_pcs_init(places, places + 2 * n);
  return Napi::Uint8Array::New(info.Env(), n, Napi::ArrayBuffer::New(info.Env(), bytes, n), 0);
}

Napi::Value run(const Napi::CallbackInfo& info) {
  const Napi::Array list = info[0].As<Napi::Array>();
  static std::vector<std::string> texts;
  texts.push_back("fuzz");
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value text = list[i];
    texts.push_back(text.As<Napi::String>());
  }
  static std::vector<char*> arguments;
  for (std::string& text : texts) arguments.push_back(text.data());
  arguments.push_back(nullptr);
  const Napi::Function function = info[1].As<Napi::Function>();
  target = &function;
  int count = static_cast<int>(texts.size());
  char** values = arguments.data();
  return Napi::Number::New(info.Env(), LLVMFuzzerRunDriver(&count, &values, test_one));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("counters", Napi::Function::New(env, counters));
  exports.Set("run", Napi::Function::New(env, run));
  return exports;
}

}  // namespace

NODE_API_MODULE(fuzz_engine, init)
