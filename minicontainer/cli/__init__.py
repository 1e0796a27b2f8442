"""The command line: docker's verbs and flags.  The only floor that prints and exits."""
