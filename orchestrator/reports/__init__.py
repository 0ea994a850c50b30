"""Result files, tables, figures."""
