// JS values -> argument structs. The only place that looks at the shape of a Napi::Value: each op
// is called with its fields in the order of its struct: typed arrays (or null where the field is
// optional) and numbers. A wrong kind or a missing argument is an ERR_ARGUMENT that names op and field.
// A tensor may lie on the GPU instead: its operand is then a Float64Array (address, elements, bytes
// an element), and so must be those of all other tensors of the call. A list of tensors is an array of
// such operands, a list of numbers a Float64Array.
#pragma once
#include <napi.h>

#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "../core/device_heap.hpp"
#include "../core/ops.hpp"

namespace spr2q {

// An Error with one of the codes of lib/errors.ts; lib/binding.ts makes a Spr2qError of it.
inline Napi::Error coded_error(Napi::Env env, const char* code, const std::string& text) {
  Napi::Error error = Napi::Error::New(env, text);
  error.Set("code", code);
  return error;
}

// A whole number of [least, most]. Nothing is converted: an object's valueOf could run anything.
inline int64_t whole_number(const Napi::Value& value, const char* what, double least, double most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : least - 1;
  if (!(number >= least && number <= most) || number != std::floor(number)) {
    throw coded_error(value.Env(), "ERR_ARGUMENT", std::string(what) + " must be a whole number from " +
                      std::to_string(static_cast<int64_t>(least)) + " to " +
                      std::to_string(static_cast<int64_t>(most)));
  }
  return static_cast<int64_t>(number);
}

constexpr double kMostWhole = 9007199254740991.0;  // 2^53 - 1: JavaScript's safe integers

// True for a list of calls, as plans are made of.
inline bool is_list_of_calls(const Napi::Value& value) {
  return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
}

// An array that a run works on while JavaScript goes on: null for null, else of `wanted` type with at
// least `least` elements, and over memory that stays where it is.
inline void* lent(const Napi::Value& value, napi_typedarray_type wanted, int64_t least,
                  const char* function, const char* what) {
  if (value.IsNull() || value.IsUndefined()) return nullptr;
  const Napi::Env env = value.Env();
  const auto refuse = [&](const char* why) {
    return coded_error(env, "ERR_ARGUMENT", std::string(function) + ": " + what + " " + why);
  };
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(env, value, &type, &length, &data, &buffer, nullptr) != napi_ok ||
      type != wanted) {
    throw refuse("is another kind of array");
  }
  if (static_cast<int64_t>(length) < least) throw refuse("is smaller than the plan's");
  const Napi::Object owner(env, buffer);
  for (const char* movable : {"resizable", "growable"}) {
    if (owner.Get(movable).ToBoolean()) throw refuse("lies in a buffer that may change its size");
  }
  return data;
}

// `count` elements of T at a place on the GPU, or null where no block that is handed out has them there.
template <class T>
T* placed_on_device(double address, double count) {
  constexpr double kMost = kMostWhole / sizeof(T);
  const auto whole = [](double n, double most) { return n >= 0 && n <= most && n == std::floor(n); };
  if (!whole(address, kMostWhole) || !whole(count, kMost)) return nullptr;
  const auto place = static_cast<uintptr_t>(address);
  T* data = reinterpret_cast<T*>(place);
  const int64_t bytes = static_cast<int64_t>(count) * static_cast<int64_t>(sizeof(T));
  const bool held = place % sizeof(T) == 0 && device_heap() && device_heap()->holds(data, bytes);
  return held ? data : nullptr;
}

inline std::string text_of(const Napi::Value& value, const char* what) {
  if (!value.IsString()) throw coded_error(value.Env(), "ERR_ARGUMENT", std::string(what) + " must be text");
  return value.As<Napi::String>();
}

class ArgumentReader {
 public:
  ArgumentReader(const Napi::CallbackInfo& info, const char* op) : info_(info), op_(op) {}

  template <class... Fields>
  void fields(const char* names, Fields&... fields) {
    names_ = names;
    if (info_.Length() != sizeof...(Fields)) {
      fail("takes " + std::to_string(sizeof...(Fields)) + " arguments (" + names + "), got " +
           std::to_string(info_.Length()));
    }
    // First of all the lists' items: an array may have getters, and after one has run no address
    // that was read before could be trusted.
    items_.resize(info_.Length());
    for (size_t i = 0; i < info_.Length(); ++i) {
      if (!info_[i].IsArray()) continue;
      const Napi::Array array = info_[i].As<Napi::Array>();
      const uint32_t count = array.Length();
      if (count > kMostItems) {
        fail(name(i) + " must have at most " + std::to_string(kMostItems) + " items");
      }
      for (uint32_t k = 0; k < count; ++k) items_[i].push_back(array.Get(k));
    }
    size_t index = 0;
    (read(index++, fields), ...);
    if (on_device_ && on_host_) fail("tensors on the GPU and in host memory in one call");
    SizeProduct product;
    product.fields(names, fields...);
    if (product.too_large()) fail(SizeProduct::kProblem);
  }

  // True where the tensors of the call lie on the GPU.
  bool on_device() const { return on_device_; }

 private:
  void read(size_t i, F32& view) { typed(i, info_[i], view.data, view.size, napi_float32_array); }
  void read(size_t i, U8& view) { typed(i, info_[i], view.data, view.size, napi_uint8_array); }
  void read(size_t i, I32& view) { typed(i, info_[i], view.data, view.size, napi_int32_array); }

  // An array of tensors, none of them absent; their views live as long as the reader.
  void read(size_t i, F32List& list) {
    if (!info_[i].IsArray()) fail(name(i) + " must be an array of tensors");
    lists_.emplace_back(items_[i].size());
    std::vector<F32>& items = lists_.back();
    for (size_t k = 0; k < items.size(); ++k) {
      const Napi::Value item = items_[i][k];
      if (item.IsNull() || item.IsUndefined()) fail(name(i) + " must have no gaps");
      typed(i, item, items[k].data, items[k].size, napi_float32_array);
    }
    list = {items.data(), static_cast<int64_t>(items.size())};
  }

  void read(size_t i, Numbers& numbers) {
    napi_typedarray_type type;
    size_t length = 0;
    void* pointer = nullptr;
    if (!info_[i].IsTypedArray() ||
        napi_get_typedarray_info(info_.Env(), info_[i], &type, &length, &pointer, nullptr,
                                 nullptr) != napi_ok ||
        type != napi_float64_array) {
      fail(name(i) + " must be a Float64Array");
    }
    numbers = {static_cast<const double*>(pointer), static_cast<int64_t>(length)};
  }

  void read(size_t i, double& number) {
    if (!info_[i].IsNumber()) fail(name(i) + " must be a number");
    number = info_[i].As<Napi::Number>().DoubleValue();
  }

  void read(size_t i, int64_t& number) {
    double value = 0;
    read(i, value);
    if (!(std::fabs(value) <= kMostWhole) || value != std::floor(value)) {
      fail(name(i) + " must be an integer");
    }
    number = static_cast<int64_t>(value);
  }

  template <class T>
  void typed(size_t i, const Napi::Value& value, T*& data, int64_t& size,
             napi_typedarray_type wanted) {
    if (value.IsNull() || value.IsUndefined()) {
      data = nullptr;
      size = 0;
      return;
    }
    napi_typedarray_type type;
    size_t length = 0;
    void* pointer = nullptr;
    if (!value.IsTypedArray() ||
        napi_get_typedarray_info(info_.Env(), value, &type, &length, &pointer, nullptr, nullptr) !=
            napi_ok ||
        (type != wanted && type != napi_float64_array)) {
      fail(name(i) + " must be a " +
           (wanted == napi_float32_array ? "Float32Array"
            : wanted == napi_uint8_array ? "Uint8Array"
                                         : "Int32Array"));
    }
    if (type == napi_float64_array) {
      on_device_ = true;
      placed(i, static_cast<const double*>(pointer), length, data, size);
      return;
    }
    on_host_ = true;
    data = static_cast<T*>(pointer);
    size = static_cast<int64_t>(length);
  }

  // A tensor on the GPU: (address, elements, bytes an element) of a block that is handed out.
  template <class T>
  void placed(size_t i, const double* place, size_t length, T*& data, int64_t& size) {
    if (length != 3 || place[2] != sizeof(T)) fail(name(i) + " is no tensor of its kind on the GPU");
    data = placed_on_device<T>(place[0], place[1]);
    if (!data) fail(name(i) + " names memory of the GPU that is not in use");
    size = static_cast<int64_t>(place[1]);
  }

  // The i-th of the comma-separated names.
  std::string name(size_t i) const {
    std::string rest = names_;
    for (size_t k = 0; k < i; ++k) rest = rest.substr(rest.find(',') + 1);
    rest = rest.substr(0, rest.find(','));
    return rest.substr(rest.find_first_not_of(' '));
  }

  [[noreturn]] void fail(const std::string& text) const {
    throw coded_error(info_.Env(), "ERR_ARGUMENT", std::string(op_) + ": " + text);
  }

  const Napi::CallbackInfo& info_;
  const char* op_;
  const char* names_ = "";
  bool on_device_ = false, on_host_ = false;
  // A sparse array can claim 2^32 items; a network has some thousand tensors.
  static constexpr uint32_t kMostItems = 1 << 20;
  std::vector<std::vector<Napi::Value>> items_;  // of the arguments that are arrays
  std::deque<std::vector<F32>> lists_;
};

}  // namespace spr2q
