// Lambdas as one overloaded function, for std::visit.
#pragma once

namespace sqs_ingest {

template<class... Functions>
struct Overloaded : Functions... {
    using Functions::operator()...;
};

} // namespace sqs_ingest
