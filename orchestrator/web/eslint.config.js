/** Lint of the dashboard's own code; types are `tsc`'s part (tsconfig.json). */

import js from "@eslint/js";
import globals from "globals";

export default [
  js.configs.recommended,
  {
    files: ["static/js/**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: globals.browser },
    rules: { eqeqeq: ["error", "smart"], "no-var": "error", "prefer-const": "error", "no-unused-vars": "error" },
  },
];
