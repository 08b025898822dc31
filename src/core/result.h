// A value, or the reason why there is none: for everything that can fail on data.
// (g++ 12 has no std::expected.) Exceptions are kept for what cannot go on.
#pragma once

#include <utility>
#include <variant>

namespace sqs_ingest {

// Result<T, E>: T and E must be different types. Reading the side that is not there throws
// std::bad_variant_access.
template<class T, class E>
class [[nodiscard]] Result {
  public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(E error) : state_(std::in_place_index<1>, std::move(error)) {}

    bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }

    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }

    E& error() & { return std::get<1>(state_); }
    const E& error() const& { return std::get<1>(state_); }
    E&& error() && { return std::get<1>(std::move(state_)); }

  private:
    std::variant<T, E> state_;
};

} // namespace sqs_ingest
