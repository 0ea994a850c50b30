"""Telling people and programs what the lab does: notices from the journal, signed webhooks, a Telegram bot."""
