#include "core/sqs/xml_answer.h"

#include "core/utf8.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <utility>

namespace sqs_ingest {

namespace {

// An answer has some thousands: ten messages with ten attributes each. A node takes 64 bytes and more.
constexpr std::ptrdiff_t kMostElements = 1'000'000;

// Elements and character data, as written: no parse_escapes (xml_text() does that), no parse_eol (it would
// make \n of \r\n), no trimming; a text of white space only is a text.
constexpr unsigned int kParse = pugi::parse_cdata | pugi::parse_ws_pcdata;

// pugixml takes any bytes, but ends at a NUL.
std::string without_nul(std::string text) {
    if (text.find('\0') == std::string::npos)
        return text;
    std::string clean;
    for (const char c : text)
        c == '\0' ? clean.append(kReplacementCharacter) : clean.append(1, c);
    return clean;
}

using CodePoint = std::uint32_t;

bool is_high_surrogate(CodePoint c) {
    return c >= 0xD800 && c <= 0xDBFF;
}

bool is_low_surrogate(CodePoint c) {
    return c >= 0xDC00 && c <= 0xDFFF;
}

bool is_character(CodePoint c) {
    return c != 0 && c <= 0x10FFFF && !is_high_surrogate(c) && !is_low_surrogate(c);
}

void append_utf8(std::string& out, CodePoint c) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | c >> 6);
        tail(0);
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | c >> 12);
        tail(6);
        tail(0);
    } else {
        out += static_cast<char>(0xF0 | c >> 18);
        tail(12);
        tail(6);
        tail(0);
    }
}

// What stands between the '&' that `text` begins with and its ';'. Empty: no reference begins here.
std::string_view leading_reference(std::string_view text) {
    constexpr std::size_t kLongest = 16;
    const std::size_t end = text.substr(0, kLongest).find(';');
    if (end == std::string_view::npos)
        return {};
    return text.substr(1, end - 1);
}

// Of "#233" or "#xE9". Empty: no character reference. A number that is too large becomes one that is no
// character.
std::optional<CodePoint> referenced(std::string_view reference) {
    if (!reference.starts_with('#'))
        return std::nullopt;
    reference.remove_prefix(1);
    const bool hexadecimal = reference.starts_with('x');
    if (hexadecimal)
        reference.remove_prefix(1);
    CodePoint c = 0;
    const char* end = reference.data() + reference.size();
    const auto [parsed_to, error] = std::from_chars(reference.data(), end, c, hexadecimal ? 16 : 10);
    if (reference.empty() || parsed_to != end)
        return std::nullopt;
    return error == std::errc{} ? c : 0;
}

char named(std::string_view reference) {
    static constexpr std::array<std::pair<std::string_view, char>, 5> kEntities = {
        {{"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}, {"amp", '&'}}};
    for (const auto& [name, c] : kEntities)
        if (name == reference)
            return c;
    return 0;
}

// Takes the reference that `text` begins with off it; false: none that is known.
bool decode_reference(std::string_view& text, WireText& out) {
    const std::string_view reference = leading_reference(text);
    if (const char c = named(reference)) {
        out.text += c;
        text.remove_prefix(reference.size() + 2);
        return true;
    }
    std::optional<CodePoint> c = referenced(reference);
    if (!c)
        return false;
    text.remove_prefix(reference.size() + 2);
    if (is_high_surrogate(*c) && text.starts_with('&')) {
        // Not allowed, but some serializers write a character beyond U+FFFF as the two halves of its UTF-16.
        const std::string_view second = leading_reference(text);
        if (const std::optional<CodePoint> low = referenced(second); low && is_low_surrogate(*low)) {
            text.remove_prefix(second.size() + 2);
            c = 0x10000 + ((*c - 0xD800) << 10) + (*low - 0xDC00);
        }
    }
    if (is_character(*c)) {
        append_utf8(out.text, *c);
    } else {
        out.text += kReplacementCharacter;
        out.damaged = true;
    }
    return true;
}

void append_decoded(WireText& out, std::string_view text) {
    while (!text.empty()) {
        const std::size_t plain = std::min(text.find('&'), text.size());
        out.text += text.substr(0, plain);
        text.remove_prefix(plain);
        if (!text.empty() && !decode_reference(text, out)) {
            out.text += '&';
            text.remove_prefix(1);
        }
    }
}

} // namespace

std::optional<XmlAnswer> parse_xml_answer(std::string_view text) {
    if (std::count(text.begin(), text.end(), '<') > kMostElements)
        return std::nullopt;
    XmlAnswer answer;
    std::string repaired;
    if (text.find('\0') != std::string_view::npos || !is_valid_utf8(text)) {
        repaired = without_nul(replace_ill_formed_utf8(text));
        text = repaired;
        answer.repaired = true;
    }
    answer.broken = !answer.document.load_buffer(text.data(), text.size(), kParse, pugi::encoding_utf8);
    if (!answer.root())
        return std::nullopt;
    return answer;
}

std::string_view xml_name(const pugi::xml_node& element) {
    const std::string_view name = element.name();
    return name.substr(name.find(':') + 1); // npos + 1 is 0
}

pugi::xml_node xml_child(const pugi::xml_node& parent, std::string_view name) {
    return parent.find_child([&](const pugi::xml_node& child) { return xml_name(child) == name; });
}

WireText xml_text(const pugi::xml_node& element) {
    WireText out;
    for (const pugi::xml_node& child : element.children()) {
        if (child.type() == pugi::node_pcdata)
            append_decoded(out, child.value());
        else if (child.type() == pugi::node_cdata)
            out.text += child.value();
        else if (child.type() == pugi::node_element)
            out.damaged = true; // markup that was meant to be text
    }
    return out;
}

} // namespace sqs_ingest
