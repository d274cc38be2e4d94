// A function object that is moved, never copied, and owns what it calls: std::function takes nothing move-only, and
// kj::Function keeps a reference to a callable that has a name.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace lahja_capn {

template <typename Signature>
class Callback;

template <typename Result, typename... Arguments>
class Callback<Result(Arguments...)> {
 public:
  Callback() = default;
  template <typename Target, typename = std::enable_if_t<!std::is_same_v<std::decay_t<Target>, Callback>>>
  Callback(Target&& target) : held_(std::make_unique<Held<std::decay_t<Target>>>(std::forward<Target>(target))) {}
  Callback(Callback&&) noexcept = default;
  Callback& operator=(Callback&&) noexcept = default;

  explicit operator bool() const { return held_ != nullptr; }
  Result operator()(Arguments... arguments) { return held_->call(std::forward<Arguments>(arguments)...); }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual Result call(Arguments... arguments) = 0;
  };
  template <typename Target>
  struct Held final : Base {
    template <typename From>
    explicit Held(From&& from) : target(std::forward<From>(from)) {}
    Result call(Arguments... arguments) override { return target(std::forward<Arguments>(arguments)...); }
    Target target;
  };

  std::unique_ptr<Base> held_;
};

}  // namespace lahja_capn
