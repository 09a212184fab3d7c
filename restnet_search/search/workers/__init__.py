"""Engines that train elsewhere: processes of this machine."""
