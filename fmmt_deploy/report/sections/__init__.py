"""The sections of a report, a module each: functions from facts to blocks."""
