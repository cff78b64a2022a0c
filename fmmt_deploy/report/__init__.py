"""The report: what a bundle's receipts say, as a page to read or print, and as a card for a paper."""
