// See wrap_device.hpp. Every function checks what it is given against the blocks that are handed
// out: a stale address is an error, never a fault of the GPU.
#include "wrap_device.hpp"

#include <string>

#include "../core/device_heap.hpp"
#include "args.hpp"

namespace spr2q {
namespace {

DeviceHeap& heap_of(const Napi::Env& env, const char* function) {
  if (!device_heap()) {
    throw Napi::Error::New(env, std::string(function) + ": openDevice() comes first");
  }
  return *device_heap();
}

// Throws the heap's failure, or `fallback` where it has none.
[[noreturn]] void refuse(const Napi::Env& env, const char* function, const char* fallback) {
  const std::string failure = device_heap()->failure();
  throw Napi::Error::New(env, std::string(function) + ": " + (failure.empty() ? fallback : failure));
}

// Null, which is nobody's, for what is no address.
void* address_of(const Napi::Value& value) {
  const double address = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0;
  if (!(address >= 0 && address <= kMostWhole)) return nullptr;
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
}

constexpr const char* kForeign = "that is no memory of the GPU in use";

Napi::Value open_device(const Napi::CallbackInfo& info) {
  const bool first = device_heap() == nullptr;
  const std::string problem = open_device_heap();
  if (!problem.empty()) throw Napi::Error::New(info.Env(), problem);
  // A worker thread that ends takes its heap along.
  if (first) info.Env().AddCleanupHook(close_device_heap);
  return info.Env().Undefined();
}

Napi::Value close_device(const Napi::CallbackInfo& info) {
  close_device_heap();
  return info.Env().Undefined();
}

Napi::Value device_take(const Napi::CallbackInfo& info) {
  DeviceHeap& heap = heap_of(info.Env(), "deviceTake");
  void* data = heap.take(whole_number(info[0], "deviceTake: bytes", 0, kMostWhole));
  if (!data) refuse(info.Env(), "deviceTake", "no memory");
  return Napi::Number::New(info.Env(), static_cast<double>(reinterpret_cast<uintptr_t>(data)));
}

Napi::Value device_give(const Napi::CallbackInfo& info) {
  if (!heap_of(info.Env(), "deviceGive").give(address_of(info[0]))) {
    refuse(info.Env(), "deviceGive", kForeign);
  }
  return info.Env().Undefined();
}

Napi::Value device_upload(const Napi::CallbackInfo& info) {
  DeviceHeap& heap = heap_of(info.Env(), "deviceUpload");
  void* to = address_of(info[0]);
  const HostBytes from = host_bytes(info.Env(), info[1], "deviceUpload");
  if (!heap.holds(to, from.bytes) || !heap.upload(to, from.data, from.bytes)) {
    refuse(info.Env(), "deviceUpload", kForeign);
  }
  return info.Env().Undefined();
}

Napi::Value device_download(const Napi::CallbackInfo& info) {
  DeviceHeap& heap = heap_of(info.Env(), "deviceDownload");
  const void* from = address_of(info[0]);
  const HostBytes to = host_bytes(info.Env(), info[1], "deviceDownload");
  if (!heap.holds(from, to.bytes) || !heap.download(to.data, from, to.bytes)) {
    refuse(info.Env(), "deviceDownload", kForeign);
  }
  return info.Env().Undefined();
}

Napi::Value device_copy(const Napi::CallbackInfo& info) {
  DeviceHeap& heap = heap_of(info.Env(), "deviceCopy");
  void *to = address_of(info[0]), *from = address_of(info[1]);
  const int64_t bytes = whole_number(info[2], "deviceCopy: bytes", 0, kMostWhole);
  if (!heap.holds(to, bytes) || !heap.holds(from, bytes) || !heap.copy(to, from, bytes)) {
    refuse(info.Env(), "deviceCopy", kForeign);
  }
  return info.Env().Undefined();
}

Napi::Value device_trim(const Napi::CallbackInfo& info) {
  heap_of(info.Env(), "deviceTrim").trim();
  return info.Env().Undefined();
}

Napi::Value device_counters(const Napi::CallbackInfo& info) {
  const DeviceCounters c = heap_of(info.Env(), "deviceCounters").counters();
  Napi::Object result = Napi::Object::New(info.Env());
  const std::pair<const char*, int64_t> entries[] = {
      {"held", c.held},           {"used", c.used},         {"peak", c.peak},
      {"taken", c.taken},         {"fresh", c.fresh},       {"uploads", c.uploads},
      {"uploaded", c.uploaded},   {"downloads", c.downloads}, {"downloaded", c.downloaded},
      {"copies", c.copies},       {"launches", c.launches},
  };
  for (const auto& [name, value] : entries) result.Set(name, static_cast<double>(value));
  return result;
}

}  // namespace

HostBytes host_bytes(Napi::Env env, Napi::Value value, const char* function) {
  void* data = nullptr;
  // By hand: an array over memory that threads share has no ArrayBuffer to ask.
  if (!value.IsTypedArray() || napi_get_typedarray_info(env, value, nullptr, nullptr, &data, nullptr,
                                                        nullptr) != napi_ok) {
    throw Napi::TypeError::New(env, std::string(function) + ": takes typed arrays");
  }
  return {static_cast<uint8_t*>(data), static_cast<int64_t>(value.As<Napi::TypedArray>().ByteLength())};
}

void export_device(Napi::Env env, Napi::Object exports) {
  exports.Set("openDevice", Napi::Function::New(env, open_device, "openDevice"));
  exports.Set("closeDevice", Napi::Function::New(env, close_device, "closeDevice"));
  exports.Set("deviceTake", Napi::Function::New(env, device_take, "deviceTake"));
  exports.Set("deviceGive", Napi::Function::New(env, device_give, "deviceGive"));
  exports.Set("deviceUpload", Napi::Function::New(env, device_upload, "deviceUpload"));
  exports.Set("deviceDownload", Napi::Function::New(env, device_download, "deviceDownload"));
  exports.Set("deviceCopy", Napi::Function::New(env, device_copy, "deviceCopy"));
  exports.Set("deviceTrim", Napi::Function::New(env, device_trim, "deviceTrim"));
  exports.Set("deviceCounters", Napi::Function::New(env, device_counters, "deviceCounters"));
}

}  // namespace spr2q
