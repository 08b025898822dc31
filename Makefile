# Builds the extension with PGXS: make, make install, make installcheck. PG_CONFIG= chooses the server.
# The core library's unit tests, sanitizers and benchmarks are CMake's (CMakeLists.txt), from the same sources.
PG_CONFIG ?= pg_config

EXTENSION = sqs_ingest
DATA = $(wildcard sql/sqs_ingest--*.sql)
MODULE_big = sqs_ingest
OBJS = $(patsubst %.cpp,%.o,$(wildcard src/core/*.cpp src/core/*/*.cpp src/net/*.cpp src/net/*/*.cpp src/pg/*.cpp))
REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/[0-9]*.sql)))
EXTRA_CLEAN = $(OBJS:.o=.d)

# The server's headers as system headers: their warnings are not ours.
PG_CPPFLAGS = -I$(CURDIR)/src -isystem $(shell $(PG_CONFIG) --includedir-server) -MMD -MP
PG_CXXFLAGS = -std=c++20 -Wall -Wextra
SHLIB_LINK = -lcurl -lcrypto -lpugixml -lz -lstdc++

# Bitcode for JIT gains nothing here, and clang 14 rejects PostgreSQL 15's headers as C++20.
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS knows no header dependencies: a stale object would be a crash.
-include $(OBJS:.o=.d)
