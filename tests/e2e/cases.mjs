// Runs named cases and prints them the way `tests/harness/report.py` reads them: the last line has the totals.

export async function runCases(suite, cases) {
  let passed = 0;
  let failed = 0;
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      passed += 1;
      console.log(`ok      ${suite} ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${suite} ${name}: ${String(error.message).replaceAll("\n", " ")}`);
    }
  }
  console.log(`${passed} passed, ${failed} failed, 0 skipped`);
  process.exitCode = failed === 0 ? 0 : 1;
}
