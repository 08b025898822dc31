// Plain values that must not outlive their use.
#pragma once

#include <openssl/crypto.h>

#include <string>

namespace sqs_ingest {

// Cleanses somebody else's text at the end of the scope.
class Cleansed {
  public:
    explicit Cleansed(std::string& text) : text_(text) {}
    Cleansed(const Cleansed&) = delete;
    Cleansed& operator=(const Cleansed&) = delete;
    ~Cleansed() { OPENSSL_cleanse(text_.data(), text_.size()); }

  private:
    std::string& text_;
};

} // namespace sqs_ingest
