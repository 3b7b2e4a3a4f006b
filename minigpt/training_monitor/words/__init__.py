"""The monitor's sentences, a file a language; `tables` puts them together."""
