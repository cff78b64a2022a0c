"""Charts as inline SVG: functions from numbers to markup, in the colours of `page.css`, with words in real text."""
