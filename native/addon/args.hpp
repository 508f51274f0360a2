// JS values -> argument structs. The only place that looks at the shape of a Napi::Value: each op
// is called with its fields in the order of its struct: typed arrays (or null where the field is
// optional) and numbers. A wrong kind or a missing argument is an ERR_ARGUMENT that names op and field.
#pragma once
#include <napi.h>

#include <cmath>
#include <string>

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
    size_t index = 0;
    (read(index++, fields), ...);
    SizeProduct product;
    product.fields(names, fields...);
    if (product.too_large()) fail(SizeProduct::kProblem);
  }

 private:
  void read(size_t i, F32& view) { typed(i, view.data, view.size, napi_float32_array); }
  void read(size_t i, U8& view) { typed(i, view.data, view.size, napi_uint8_array); }
  void read(size_t i, I32& view) { typed(i, view.data, view.size, napi_int32_array); }

  void read(size_t i, double& number) {
    if (!info_[i].IsNumber()) fail(name(i) + " must be a number");
    number = info_[i].As<Napi::Number>().DoubleValue();
  }

  void read(size_t i, int64_t& number) {
    double value = 0;
    read(i, value);
    if (!(std::fabs(value) <= 9007199254740991.0) || value != std::floor(value)) {
      fail(name(i) + " must be an integer");
    }
    number = static_cast<int64_t>(value);
  }

  template <class T>
  void typed(size_t i, T*& data, int64_t& size, napi_typedarray_type wanted) {
    const Napi::Value value = info_[i];
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
        type != wanted) {
      fail(name(i) + " must be a " +
           (wanted == napi_float32_array ? "Float32Array"
            : wanted == napi_uint8_array ? "Uint8Array"
                                         : "Int32Array"));
    }
    data = static_cast<T*>(pointer);
    size = static_cast<int64_t>(length);
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
};

}  // namespace spr2q
