// A server's XML answer as a tree, even when a part of it is damaged.
//
// pugixml reads the structure only: it knows no external entities and no DTD, and skips a DOCTYPE. Texts stay
// as they were written, white space, line ends and character references included, and xml_text() decodes
// them: so that a message body is what was sent, to the byte, and a reference to no character costs that text
// alone.
#pragma once

#include "core/sqs/answer_parts.h" // WireText

#include <optional>
#include <pugixml.hpp>
#include <string_view>

namespace sqs_ingest {

struct XmlAnswer {
    pugi::xml_document document;
    // The text held bytes that are no UTF-8, or NULs: each was replaced by U+FFFD.
    bool repaired = false;
    // It is no XML from some point on; the tree holds what came before it, the last element perhaps
    // unfinished.
    bool broken = false;

    pugi::xml_node root() const { return document.document_element(); }
};

// Empty when `text` has no element at all, or more than any answer of SQS. Never throws on data, never
// recurses with its depth.
std::optional<XmlAnswer> parse_xml_answer(std::string_view text);

// The element's name, without a namespace prefix.
std::string_view xml_name(const pugi::xml_node& element);

// The first child element of that name, whatever its prefix; a null node when there is none.
pugi::xml_node xml_child(const pugi::xml_node& parent, std::string_view name);

// All character data directly inside an element; empty for a null node. References to characters that XML
// cannot hold become U+FFFD and `damaged`, and so is a text with elements in it; unknown entities stay as
// they are.
WireText xml_text(const pugi::xml_node& element);

} // namespace sqs_ingest
